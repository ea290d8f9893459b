"""`fieldtune predict`: what a run's model answers to requests, pictures or films; without a run the base model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldtune.command_words import must_name_a_model, options_of, words_of_configuration
from fieldtune.errors import UserError
from fieldtune.sources.pictures import MediaError

if TYPE_CHECKING:
    from fieldtune.models.films import Moments
    from fieldtune.runs import Run
    from fieldtune.serving.predictor import Predictor

OWN = {"run": "", "input": "", "image": "", "video": "", "exercise": "", "sheet": "", "output": ""}
WORDS = {**OWN, "system": "tuned", "device": "cpu"}
LATEST, BASE = "latest", "base"  # as run
RESULTS = ("model", "adapter")  # folders of a finished training, of which it has one
FILES = {  # that are found in a folder
    "image": (".png", ".jpg", ".jpeg"),
    "video": (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"),
}
SHEET_WIDTH, SHEET_COLUMNS = 240, 4  # of a frame, pixels; frames side by side
TIMEOUT = 60.0  # seconds that reading a film for its sheet may take, beside its own length


def main(arguments: Sequence[str]) -> None:
    """Answer, a line of JSON each; `UserError` if nothing can be answered."""
    options = options_of([word for word in arguments if word.partition("=")[0] in WORDS], WORDS)
    words = words_of_configuration(arguments, WORDS)
    must_name_a_model(options)
    if not options["run"] and not words:
        raise UserError(
            "run= is missing; give run=FOLDER, run=latest, or the words of a configuration, as in experiment=qved_demo"
        )
    requests = _requests(options)
    sheets = _sheets(options, requests)
    predictor, said = _model(options, words)
    if said:
        print(said, file=sys.stderr)
    if options["exercise"] and "{exercise}" not in getattr(predictor.config.data, "user_prompt", ""):
        raise UserError(f"exercise={options['exercise']}: the prompt of this run names no exercise; leave it out")
    if not options["input"]:
        requests = _readable(predictor, requests)
    try:
        lines = _answered(predictor, requests, options)
        for line in lines:
            if options["video"] and line["request"]["video"] in sheets:
                _write_sheet(line, sheets[line["request"]["video"]])
    except MediaError as error:  # it could be read a moment ago
        raise UserError(str(error)) from None
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    if options["output"]:
        from fieldtune.runs import write_text

        write_text(Path(options["output"]), text)
        print(f"{len(lines)} answers in {options['output']}")
    else:
        print(text, end="")


def _requests(options: Mapping[str, str]) -> list[dict[str, Any]]:
    given = [name for name in ("input", "image", "video") if options[name]]
    if len(given) != 1:
        raise UserError(
            "predict needs what is asked: give input=FILE (.json or .jsonl), image=FILE or video=FILE, one of them"
        )
    (kind,) = given
    for name in ("exercise", "sheet"):
        if options[name] and kind != "video":
            raise UserError(f"{name}={options[name]} goes with video=FILE; leave it out with {kind}=")
    if kind == "input":
        return requests_of(Path(options["input"]))
    named = {"exercise": options["exercise"]} if options["exercise"] else {}
    return [{kind: str(path), **named} for path in _files(kind, Path(options[kind]))]


def _files(kind: str, path: Path) -> list[Path]:
    """A picture or film, or each in a folder in the order of their names."""
    what = {"image": "picture", "video": "film"}[kind]
    if not path.exists():
        raise UserError(f"{kind}={path} does not exist; give the path of a {what}, or of a folder of them")
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in FILES[kind] and not one.name.startswith("."))
    if not found:
        raise UserError(f"{kind}={path} holds no {what}; allowed: {', '.join(FILES[kind])}, right in it")
    return found


def requests_of(path: Path) -> list[dict[str, Any]]:
    """Requests of a .json (one object or a list) or .jsonl file."""
    if not path.is_file():
        raise UserError(f"input={path} is not a file; give .json or .jsonl")
    text = path.read_text(encoding="utf-8-sig")
    found: list[Any] = []
    try:
        if path.suffix == ".json":
            value = json.loads(text)
            found = value if isinstance(value, list) else [value]
        else:
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    found.append(_line(path, number, line))
    except json.JSONDecodeError as error:
        raise UserError(f"input={path} is not JSON (line {error.lineno}: {error.msg})") from None
    if not found or not all(isinstance(item, dict) for item in found):
        raise UserError(f"input={path} must hold at least one JSON object, each a request")
    return found


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"input={path}:{number} is not JSON ({error.msg})") from None


def _sheets(options: Mapping[str, str], requests: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """Where the contact sheet of each film is written: a file for one film, else files in a folder."""
    if not options["sheet"]:
        return {}
    from fieldtune.sources.contact_sheet import SHEETS

    place = Path(options["sheet"])
    films = [str(request["video"]) for request in requests]
    if place.suffix.lower() not in SHEETS or place.is_dir():
        if place.exists() and not place.is_dir():
            raise UserError(f"sheet={place} is no folder; give a folder, or a file that ends in {', '.join(SHEETS)}")
        return {film: place / f"{Path(film).name}.png" for film in films}
    if Path(options["video"]).is_dir():
        raise UserError(f"sheet={place} is one file, video={options['video']} a folder; give a folder for the sheets")
    return dict.fromkeys(films, place)


def _model(options: Mapping[str, str], words: Sequence[str]) -> tuple[Predictor, str]:
    """What answers, and what is to be said of it: that it is the base model, where no trained one is there."""
    run, device, system = options["run"], options["device"], options["system"]
    if run in ("", LATEST, BASE) and words:
        return _of_configuration(run, words, device, system)
    if run == BASE:
        raise UserError("run=base needs the words of a configuration beside it, as in experiment=qved_demo")
    if words:
        raise UserError(f"{words[0]} cannot be given with run={run}: the run decides it")
    from fieldtune.runs import open_run

    return _of_run(_latest() if run == LATEST else open_run(Path(run)), device, system)


def _latest() -> Run:
    """The newest finished training; if none has finished, the newest one."""
    from fieldtune.runs import list_runs

    begun = [run for run in list_runs(Path("outputs")) if run.stage == "train"]
    if not begun:
        raise UserError(
            "no train run is in outputs; run train.py first, or name the configuration whose base model shall answer, "
            "as in run=base experiment=qved_demo"
        )
    return ([run for run in begun if run.status == "finished"] or begun)[-1]


def _of_run(run: Run, device: str, system: str) -> tuple[Predictor, str]:
    from fieldtune.loading import load
    from fieldtune.serving.predictor import Predictor

    there = any((run.folder / name).is_dir() for name in RESULTS)
    if run.stage != "train" or (run.status == "finished" and there):
        return Predictor(run.folder, device=device, system=system), ""
    config = load(run.config())
    state = f"is {run.status}" if run.status != "finished" else "holds no model any more"
    return Predictor.of_base(config, device=device), f"{run.folder} {state}: {_untrained(config.model.name)}"


def _of_configuration(run: str, words: Sequence[str], device: str, system: str) -> tuple[Predictor, str]:
    """The newest finished run that was trained with these words; else the base model of the configuration."""
    from fieldtune.checks import check
    from fieldtune.composition import composed
    from fieldtune.config import Accelerator, HardwareConfig
    from fieldtune.evaluated_run import newest_run
    from fieldtune.serving.predictor import Predictor

    config = composed("train", list(words))
    found = newest_run(config, list(words)) if run != BASE else None
    if found is not None:
        return Predictor(found.folder, device=device, system=system), ""
    config = replace(config, hardware=HardwareConfig(accelerator=Accelerator[device]))
    check(config, "predict")
    said = f"no trained run of {config.name} is in {config.output_dir}: {_untrained(config.model.name)}"
    return Predictor.of_base(config, device=device), said if run != BASE else ""


def _untrained(name: str) -> str:
    return f"the base model {name} answers, which was not fine-tuned"


def _readable(predictor: Predictor, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The requests whose files can be read; the others are named. `UserError` if none can."""
    broken = predictor.problems(requests)
    if not broken:
        return requests
    if len(requests) == 1:
        raise UserError(broken[0])
    for reason in broken.values():
        print(f"left out: {reason}", file=sys.stderr)
    if len(broken) == len(requests):
        raise UserError(f"none of {len(requests)} files can be read")
    return [request for number, request in enumerate(requests) if number not in broken]


def _answered(
    predictor: Predictor, requests: Sequence[Mapping[str, Any]], options: Mapping[str, str]
) -> list[dict[str, Any]]:
    answers = predictor.predict(requests)
    lines = [
        {"request": request, "answer": answer.text, "ended": answer.ended}
        for request, answer in zip(requests, answers, strict=True)
    ]
    if options["image"]:
        for line, (name, share) in zip(lines, predictor.labels(requests), strict=False):
            line |= {"label": name, "confidence": round(share, 6)}
    if options["video"]:
        for line, moments in zip(lines, predictor.chosen(requests), strict=True):
            line |= _told(moments)
    return lines


def _told(moments: Moments | None) -> dict[str, Any]:
    """The frames that the model chose, by number and time."""
    if moments is None:
        return {}
    return {"frames": list(moments.frames), "seconds": [round(second, 3) for second in moments.seconds]}


def _write_sheet(line: dict[str, Any], path: Path) -> None:
    """Write the contact sheet of an answer, and where it is into the line."""
    from fieldtune.sources.contact_sheet import film_sheet, save_sheet
    from fieldtune.sources.decoder import Decoder

    film = Path(line["request"]["video"])
    times = list(zip(line.get("frames", []), line.get("seconds", []), strict=True))
    with Decoder(TIMEOUT) as decoder:
        sheet = film_sheet(decoder, film, times, SHEET_COLUMNS, SHEET_WIDTH, title=film.name)
    save_sheet(sheet, path)
    line["sheet"] = str(path)
