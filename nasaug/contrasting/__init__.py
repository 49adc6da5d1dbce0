"""Top-down beside bottom-up: ways to one small network, at equal total training compute.

Once-for-All (Cai et al., ICLR 2020) trains a large network and shrinks it: what will be used of it
is known at its end only. NetAug (Cai et al., ICLR 2022) knows the small network from the start and
borrows the larger ones. Both run on one elastic network class and one training loop.
"""
