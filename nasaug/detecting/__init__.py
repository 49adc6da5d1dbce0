"""Detectors compared at equal mAP: what pre-training a backbone with NetAug saves in MACs.

Cai et al., "Network Augmentation for Tiny Deep Learning" (ICLR 2022), section 4.3: a backbone is
pre-trained alone or with NetAug, the same detector is trained on each at several input sizes, and
the two curves of mAP over MACs are read sideways. A study's cells are ordinary runs of `nasaug
train` and `nasaug detect train`, as those of `nasaug.comparing` are.
"""
