"""`import_answers`: the answers of a model that runs elsewhere, judged like those of `evaluate`."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.problems import BadRecord, shown, whole_characters
from gpt4roi_nb.evaluate.benchmarks.item import Prediction
from gpt4roi_nb.evaluate.benchmarks.registry import benchmark, check_files
from gpt4roi_nb.evaluate.exchange import LIKELIHOOD, read_header, sizes_of
from gpt4roi_nb.evaluate.journal import Journal
from gpt4roi_nb.evaluate.metrics.scorers import check_scorers
from gpt4roi_nb.evaluate.predict import Outcome
from gpt4roi_nb.evaluate.processes import RunFolder, data_root
from gpt4roi_nb.evaluate.questions import Questions
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.files import check_regular_file, parse_json

NO_ANSWER = "questions without an answer in the file"
INCOMPLETE = "answers left out, since another question of their image or group has none"


def import_answers(
    file: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    mapping_model: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Result:
    """Judge the answers of a model that runs elsewhere, as `evaluate` judges its own.

    The first line of the file is the header of `export_questions`, with `model` added: the model's name. It may also
    say `revision` (of the weights), `regions` (how the model was told a region, such as "mask") and `decoding`; they
    are on the card. Each further line is an answer:

    - `id`: of the question;
    - `answer`: the text, if the scorer is "generate";
    - `option_logprobs`: the natural log-probability of each option, in their order, if it is "likelihood";
    - optional: `logprob`, the mean log-probability of the answer's tokens, and `seconds`.

    Other entries of a line are ignored, so a line of the questions with its answer added will do. A question without a
    line is counted, and left out with the other questions of its image or group; the card says that the result is not
    complete. An answer that is empty counts as wrong.

    Args:
        file: the answers.
        root: as for `export_questions`.
        model: name of the model; replaces the header's.
        mapping_model: as for `evaluate`.
        folder: where the result is saved. None saves nothing.

    Returns:
        What `evaluate` returns: `compare`, galleries, `to_fiftyone` and `FailureBrowser` take it. `card.checkpoint` is
        a hash of what the header says of the model.

    Raises:
        FileNotFoundError: there is no such file, or data, Java or the embedder is missing.
        ImportError: a package that scores the answers is missing.
        ValueError: a line is malformed (the message names it), an id is unknown or occurs twice, the answers are to
            other questions than those of `root`, none of them can be judged, or `folder` holds another run.

    >>> import json
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import export_questions, import_answers
    >>> world = write_world("world", 2, progress=False)
    >>> header, *asked = export_questions("coco", world, out="questions.jsonl").read_text().splitlines()
    >>> with open("answers.jsonl", "w") as file:
    ...     print(json.dumps(json.loads(header) | {"model": "says mug"}), file=file)
    ...     for line in asked:
    ...         print(json.dumps({"id": json.loads(line)["id"], "answer": "mug"}), file=file)
    >>> result = import_answers("answers.jsonl", world)
    >>> result.card.checkpoint_name, len(result.predictions) == len(asked)
    ('says mug', True)
    """
    source = Path(file)
    lines = _lines(source)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{str(source)!r} is empty; its first line must be the header that `export_questions` wrote")
    asked, digest, about = read_header(first[1], _where(source, first[0]), model)
    chosen = benchmark(asked.benchmark)
    place = data_root(root, None)
    embedder = None if mapping_model is None else os.fspath(mapping_model)
    check_files(chosen.name, place, asked.split)
    check_scorers(chosen.scorers, embedder)
    with RunFolder(folder, None) as kept:
        questions = asked.read(place, kept, keep=folder is not None, mapping_model=embedder)
        if questions.digest() != digest:
            raise ValueError(
                f"{str(source)!r} answers other questions of {chosen.name} ({digest}) than those of {str(place)!r} "
                f"({questions.digest()}); name the folder that they were exported from, with the same files"
            )
        # Another run's folder is left as it is.
        Journal(kept).begin(asked.header() | {"checkpoint": about.checkpoint, "questions": digest})
        outcomes = _outcomes(lines, questions, source, likely=asked.scorer == LIKELIHOOD)
        _count_missing(questions, outcomes, source)
        result = questions.judged(outcomes, lambda entries: about.card(entries, chosen))
        if folder is not None:
            result.save(kept)
    return result


def _where(file: Path, line: int) -> str:
    return f"line {line} of {str(file)!r}"


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, content) of each line. Raises ValueError for one that is no JSON object."""
    check_regular_file(file)
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{_where(file, number)} is not UTF-8 text: {error}") from error
            if text.strip():
                content = parse_json(text, _where(file, number))
                if not isinstance(content, dict):
                    raise ValueError(f"line {number} of {str(file)!r} must be a JSON object, but is {shown(content)}")
                yield number, content


def _outcomes(
    lines: Iterator[tuple[int, dict[str, Any]]], questions: Questions, file: Path, *, likely: bool
) -> dict[str, Outcome]:
    """Return the outcomes by id: an answer, or why the question's image cannot be read."""
    sizes = sizes_of(questions.items)
    items = {item.id: item for item in questions.items}
    outcomes: dict[str, Outcome] = {}
    read: dict[str, int] = {}  # id → line
    for item in questions.items:
        size = sizes[item.image]
        if isinstance(size, BadRecord):
            outcomes[item.id] = item.id, size
    for number, answer in lines:
        where = _where(file, number)
        name = answer.get("id")
        if not isinstance(name, str) or name not in items:
            raise ValueError(f"{where}: 'id' must be that of an exported question, but is {shown(name)}")
        if name in read:
            raise ValueError(f"{where} answers {name!r} again, which line {read[name]} did; leave one of them out")
        read[name] = number
        try:
            text, logprob, each = _chosen(answer, items[name].options) if likely else _written(answer)
            seconds = _number(answer, "seconds") or 0.0
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        size = sizes[items[name].image]
        if isinstance(size, tuple):
            outcomes[name] = Prediction(name, text, logprob, each, seconds, *size)
    return outcomes


def _written(answer: dict[str, Any]) -> tuple[str, float | None, None]:
    text = answer.get("answer")
    if not isinstance(text, str):
        raise ValueError(f"'answer' must be the text that the model wrote, but is {shown(text)}")
    return whole_characters(text.strip()), _number(answer, "logprob"), None


def _chosen(answer: dict[str, Any], options: Sequence[str]) -> tuple[str, float, tuple[float, ...]]:
    given = answer.get("option_logprobs")
    if not isinstance(given, list) or len(given) != len(options) or not all(map(_is_finite, given)):
        raise ValueError(
            "'option_logprobs' must be the natural log-probability of each of the options "
            f"{', '.join(options)}: {len(options)} numbers, but is {shown(given)}"
        )
    largest = max(given)
    total = largest + math.log(math.fsum(math.exp(one - largest) for one in given))
    normalised = tuple(float(one - total) for one in given)
    best = max(range(len(options)), key=normalised.__getitem__)
    return options[best], normalised[best], normalised


def _number(answer: dict[str, Any], key: str) -> float | None:
    value = answer.get(key)
    if value is None:
        return None
    if not _is_finite(value):
        raise ValueError(f"{key!r} must be a number or absent, but is {shown(value)}")
    return float(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count_missing(questions: Questions, outcomes: Mapping[str, Outcome], file: Path) -> None:
    """Count what has no answer on the card, and warn. Raises ValueError if nothing is left to judge."""
    missing = [item.id for item in questions.items if item.id not in outcomes]
    if not missing:
        return
    unfinished = questions.unfinished(outcomes.keys())
    answered = [item for item in questions.items if isinstance(outcomes.get(item.id), Prediction)]
    lost = sum((item.group or item.id) in unfinished for item in answered)
    count = f"{len(missing):,} of {len(questions.items):,} questions"
    words = f"{count} have no answer in {str(file)!r}, such as {missing[0]!r}"
    if unfinished == questions.unfinished(()):
        raise ValueError(f"{words}; too few are left for any metric")
    questions.problems.left_out[NO_ANSWER] = len(missing)
    if lost:
        questions.problems.left_out[INCOMPLETE] = lost
    warnings.warn(f"{words}; these and {lost:,} others of their images or groups are left out", stacklevel=3)
