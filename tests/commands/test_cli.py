"""The command line: every command explains itself, and loads only what it needs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.commands.main import COMMANDS, main
from tests.support.pictures import ROOT, SAMPLES
from tests.support.processes import pranet


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("completion") / "pranet"
    script.write_text(pranet("completion", "bash").stdout)
    return script


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert COMMANDS[command][1][1:] in capsys.readouterr().out


def test_an_error_of_the_user_is_one_line_and_exit_code_2() -> None:
    done = pranet("serve", "--weights", "/gone.safetensors", "--port", 0, "--grpc-port", 0)
    assert done.returncode == 2
    reason = "cannot be read (No such file or directory); check the path and its permissions"
    assert done.stderr.splitlines()[-1] == f"pranet: weights file /gone.safetensors: {reason}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("receive", "--spool", "s", "--stow-url", "http://pacs", "--dicom-port", "112345"),
        ("receive", "--spool", "s", "--stow-url", "http://pacs", "--metrics-port", "-1"),
        ("label-studio", "--label-studio-url", "http://ls", "--label-studio-token-file", "t", "--port", "65536"),
    ],
)
def test_a_port_that_is_none_is_refused_before_anything_is_loaded(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"{words[-1]} is no port; give a number from 0 to 65535" in capsys.readouterr().err


def test_a_file_where_a_folder_must_go_is_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").touch()
    assert main(["segment", str(SAMPLES[0]), "-o", str(tmp_path / "taken")]) == 2
    (line,) = (each for each in capsys.readouterr().err.splitlines() if each.startswith("pranet: "))
    assert line == f"pranet: --out {tmp_path / 'taken'} is a file; give a folder"


def test_an_unknown_setting_in_the_environment_ends_the_start() -> None:
    done = pranet("serve", PRANET_TRESHOLD="0.5")
    assert done.returncode == 2
    assert "did you mean PRANET_THRESHOLD?" in done.stderr


def test_serving_never_imports_training() -> None:
    code = "import sys, service.app; print([name for name in sys.modules if name.startswith('model.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "model.engines.factory" in loaded
    assert "model.training" not in loaded
    assert "model.evaluation" not in loaded


def test_a_command_whose_extra_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "evaluate", ("package_that_is_not_here", "judge weights"))
    assert main(["evaluate", "--weights", "w"]) == 2
    said = capsys.readouterr().err
    assert "evaluate needs package_that_is_not_here" in said
    assert said.endswith("pip install -e '.[train]'\n")


COMPLETED = """
source {script}
complete -p pranet > /dev/null
COMP_WORDS=({words}) COMP_CWORD={last}
_shtab_pranet
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pranet se", {"serve", "segment"}),
        ("pranet serve --prec", {"--precision"}),
        ("pranet serve --log-level w", {"warning"}),
        ("pranet tokens re", {"remove"}),
        ("pranet segment serv", {"service"}),
    ],
)
def test_bash_completes_commands_flags_choices_and_paths(words: str, offered: set[str], completion: Path) -> None:
    last = len(words.split()) - 1
    asked = COMPLETED.format(script=completion, words=words, last=last)
    done = subprocess.run(["bash", "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_the_command_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\s", shown, re.MULTILINE) for name in COMMANDS)


EARLY_SIGHUP = """
import importlib, os, signal, sys
importing = importlib.import_module
def interrupted(name, package=None):
    os.kill(os.getpid(), signal.SIGHUP)
    return importing(name, package)
importlib.import_module = interrupted
from service.commands.main import main
sys.argv = ["pranet", "serve", "--weights", "/gone.safetensors", "--port", "0", "--grpc-port", "0"]
sys.exit(main())
"""


def test_a_sighup_before_the_server_handles_it_does_not_end_the_start() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY_SIGHUP], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "pranet: weights file /gone.safetensors" in done.stderr
