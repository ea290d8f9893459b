"""The `fieldtune` command: the stages, what is trained on, and what is done with runs once they are there.

fieldtune prepare|train|evaluate ...       the three commands, from any folder
fieldtune rows [experiment=... and other words of train.py] [split=train] [rows=3] [id=ROW] [html=FILE]
                                           rows as the model sees them, with the tokens that the loss counts
fieldtune plan [words of train.py] [gpu=T4] [memory=16GB] [devices=2] [hour_price=0.35]
                                           memory, steps, tokens, time and money, before anything is loaded
fieldtune runs list [output_dir=outputs]
fieldtune runs show RUN
fieldtune validate FILE [FILE ...]        what is wrong with data, by file, line and field; exit status 2 if anything is
fieldtune predict run=FOLDER|latest input=FILE|image=FILE|video=FILE [output=FILE] [system=tuned|base] [device=cpu|gpu]
                                           answers; image= and video= may be folders. Of pictures with the label and how
                                           sure the model is of it, if the run's task has labels; of films with the
                                           frames that the model chose. [exercise=NAME] [sheet=FILE.png|FOLDER]
                                           words of train.py in place of run=: that experiment's newest run, and the
                                           base model if there is none; run=base: that model
fieldtune serve run=FOLDER|latest [host=127.0.0.1] [port=8000] [system=tuned|base] [device=cpu|gpu] [batch=8] [queue=64]
                [reuse=4096]               an OpenAI-compatible server; a host that is not loopback needs a key in
                                           FIELDTUNE_API_KEY
                                           database=FILE|URL [constrained=on|off] adds the fitness coach's addresses
fieldtune fitness migrate|add|athletes|plan|ask|undo|audit ...
                                           athletes and plans in a database, changed by a model's answers that pass
fieldtune chat run=FOLDER|latest [system=tuned|base] [device=cpu|gpu] [temperature=0.7] [max_tokens=400]
fieldtune export run=FOLDER|latest to=adapter|merged|gguf|ollama|pth [quantization=q8_0] [precision=fp32] [out=FOLDER]
                                           files for other programs, compared with the run's model before they are
                                           published; docs/export.md has the further words
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldtune.command_words import must_name_a_model, words_of_configuration
from fieldtune.command_words import options_of as _options
from fieldtune.command_words import whole_number as _whole
from fieldtune.config import Config
from fieldtune.errors import UserError
from fieldtune.keys import nearest

STAGES = ("prepare", "train", "evaluate")
ROWS = {"split": "train", "rows": "3", "id": "", "html": ""}  # words of `rows` that are not the configuration's
PLAN = {"gpu": "", "memory": "", "devices": "", "hour_price": ""}  # words of `plan` that are not the configuration's
MODEL_WORDS: dict[str, str | None] = {"run": None, "system": "tuned", "device": "cpu"}  # which model answers
SERVE = {**MODEL_WORDS, "host": "127.0.0.1", "port": "8000", "batch": "8", "queue": "64", "reuse": "4096"}
SERVE_FITNESS = {"database": "", "constrained": "on"}
CHAT = {**MODEL_WORDS, "temperature": "", "max_tokens": "400"}


def main() -> None:
    """Entry point: exits with 0, or with 2 and one line on bad input."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        return
    command, *rest = arguments
    try:
        if command in STAGES:
            _stage(command, rest)
        elif command == "rows":
            _rows(rest)
        elif command == "plan":
            _plan(rest)
        elif command == "runs":
            _runs(rest)
        elif command == "validate":
            _validate(rest)
        elif command == "predict":
            from fieldtune.predict_command import main as predict

            predict(rest)
        elif command == "serve":
            _serve(_options(rest, {**SERVE, **SERVE_FITNESS}))
        elif command == "fitness":
            from fieldtune.fitness_commands import main as fitness

            fitness(rest)
        elif command == "chat":
            _chat(_options(rest, CHAT))
        elif command == "export":
            _export(rest)
        else:
            known = [*STAGES, "rows", "plan", "runs", "validate", "predict", "serve", "chat", "fitness", "export"]
            raise UserError(f"{command} is not a command{nearest(command, known)}; there are: {', '.join(known)}")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(141)


def _stage(stage: str, arguments: list[str]) -> None:
    from fieldtune.launch import main as launch

    sys.argv = [f"{stage}.py", *arguments]
    launch(stage)


def _rows(arguments: Sequence[str]) -> None:
    from fieldtune.checks import check
    from fieldtune.composition import composed

    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    options = _options([word for word in arguments if word.partition("=")[0] in ROWS], ROWS)
    if not (options["rows"].isdecimal() and int(options["rows"])):
        raise UserError(f"rows={options['rows']} is not a number of rows; give a whole number, 1 or more")
    config = composed("train", words_of_configuration(arguments, ROWS))
    check(config, "train")
    from fieldtune.data.show import terminal_view, view, write_view

    logging.basicConfig(format="%(message)s")
    logging.getLogger("fieldtune").setLevel(logging.INFO)  # a first conversion of weights takes a minute
    seen = view(config, options["split"], int(options["rows"]), options["id"])
    if options["html"]:
        path = write_view(Path(options["html"]), seen)
        print(f"{seen.account_line}\n{len(seen.shown)} rows in {path}")
    else:
        encoding = sys.stdout.encoding or "utf-8"  # a terminal may know fewer letters than a row has
        text = terminal_view(seen, color=_has_color()).encode(encoding, "backslashreplace").decode(encoding)
        print(text, end="")


def _plan(arguments: Sequence[str]) -> None:
    from fieldtune.checks import check
    from fieldtune.composition import composed

    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    options = _options([word for word in arguments if word.partition("=")[0] in PLAN], PLAN)
    price = _price(options.pop("hour_price"))
    words = words_of_configuration(arguments, PLAN)

    def checked(more: Sequence[str] = ()) -> Config:
        config = composed("train", [*words, *more])
        check(config, "plan")
        return config

    config = checked()
    from fieldtune.planning.advice import remedies
    from fieldtune.planning.machine import machine
    from fieldtune.planning.plan import plan
    from fieldtune.planning.text import page

    logging.basicConfig(format="%(message)s")
    logging.getLogger("fieldtune").setLevel(logging.INFO)  # a first conversion of weights takes a minute
    there = machine(config, **options)
    made = plan(config, there)
    found = [] if made.fits else remedies(made, lambda more: plan(checked(more), there))
    print(page(made, price, found), end="")


def _price(text: str) -> float | None:
    try:
        price = float(text) if text else None
    except ValueError:
        price = -1.0
    if price is not None and not 0 <= price < 1e9:
        raise UserError(f"hour_price={text} is not a price; give the price of an hour, as in hour_price=0.35")
    return price


def _has_color() -> bool:
    """Whether to color: not into a file or a pipe, and not against https://no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _runs(arguments: Sequence[str]) -> None:
    from fieldtune.runs import list_runs, open_run

    action, *rest = arguments or ["list"]
    if action == "list":
        folder = Path(_options(rest, {"output_dir": "outputs"})["output_dir"])
        for run in list_runs(folder):
            print(f"{run.status:<11} {run.stage:<9} {run.name:<24} {run.folder}{_figure(run)}")
    elif action == "show" and len(rest) == 1:
        run = open_run(Path(rest[0]))
        record = run.manifest() if run.status == "finished" else dict(run.started)
        print(json.dumps({"status": run.status, **record}, indent=2, ensure_ascii=False))
    else:
        raise UserError(f"runs {' '.join(arguments)} is not understood; give: runs list, or: runs show RUN")


def _figure(run: Any) -> str:
    """One figure that says most of a finished run."""
    if run.status != "finished":
        return ""
    metrics = run.manifest().get("metrics", {})
    wanted = ("tuned/perplexity", "val/best_loss", "val/loss", "rows/train")
    return next((f"  {name} {metrics[name]:.4g}" for name in wanted if name in metrics), "")


def _validate(arguments: Sequence[str]) -> None:
    from fieldtune.file_check import check_file

    if not arguments:
        raise UserError("validate needs a file; give: fieldtune validate FILE [FILE ...]")
    wrong = 0
    for path in arguments:
        report = check_file(Path(path))
        wrong += len(report.problems)
        print("\n".join(report.problems) or f"{path}: {report.rows:,} rows, nothing is wrong")
    if wrong:
        raise UserError(f"{wrong:,} problems")


def _serve(options: Mapping[str, str]) -> None:
    must_name_a_model(options)
    port, batch = _whole(options, "port", 0, 65535), _whole(options, "batch", 1, 1024)
    queue, reuse = _whole(options, "queue", 1, 100_000), _whole(options, "reuse", 0, 100_000_000)
    from fieldtune.serving.server import ServeOptions, serve

    run, host, system, device = (options[key] for key in ("run", "host", "system", "device"))
    wanted = ServeOptions(run, host, port, system, device, batch=batch, queue=queue, reuse=reuse)
    if options["database"]:
        from fieldtune.fitness_commands import routes

        serve(wanted, routes(run, options["database"], options["constrained"]))
    else:
        serve(wanted)


def _chat(options: Mapping[str, str]) -> None:
    must_name_a_model(options)
    tokens, text = _whole(options, "max_tokens", 1, 1_000_000), options["temperature"]
    try:
        temperature = float(text) if text else None
    except ValueError:
        temperature = -1.0
    if temperature is not None and not 0 <= temperature <= 2:
        raise UserError(f"temperature={text} is not a temperature; give a number from 0 to 2")
    from fieldtune.serving.chat import chat

    chat(options["run"], system=options["system"], device=options["device"], temperature=temperature, tokens=tokens)


def _export(arguments: Sequence[str]) -> None:
    from fieldtune.export.options import WORDS, options

    wanted = options(_options(arguments, WORDS))
    from fieldtune.export.stage import export

    logging.basicConfig(format="%(message)s")
    logging.getLogger("fieldtune").setLevel(logging.INFO)
    print(f"exported to {export(wanted)}")


if __name__ == "__main__":
    main()
