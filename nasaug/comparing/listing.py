"""The built-in studies, each with its question and its answer."""

from __future__ import annotations

from nasaug.comparing.studies import built_in_studies, load_study
from nasaug.console import emit_json, emit_table
from nasaug.study_config import NOT_RUN


def list_studies(as_json: bool) -> None:
    """One line a study."""
    studies = {name: load_study(name)[1] for name in built_in_studies()}
    if as_json:
        emit_json(
            {
                name: {"question": study.question, "answer": study.answer}
                for name, study in studies.items()
            }
        )
        return
    rows = [
        [name, study.question, "not yet" if study.answer == NOT_RUN else "yes"]
        for name, study in studies.items()
    ]
    emit_table("Built-in studies", ("study", "question", "answered"), rows, left=3)
