"""Settings come from one place, and a wrong one says what to do."""

import re

import pytest

from service.commands import main as cli
from service.configuration import load
from service.settings import Settings, SettingsError
from service.validation import in_a_sentence
from tools.readme_tables import SETTING_TEXTS, setting_texts


def test_a_flag_wins_over_the_environment() -> None:
    loaded, _ = load({"PRANET_PORT": "9000", "PRANET_THRESHOLD": "0.4"}, {"port": "9001", "threshold": None})
    assert (loaded.port, loaded.threshold) == (9001, 0.4)


def test_an_unknown_variable_names_the_nearest_setting() -> None:
    with pytest.raises(
        SettingsError, match=r"PRANET_MAX_BATCHSIZE is not a setting; did you mean PRANET_MAX_BATCH_SIZE"
    ):
        load({"PRANET_MAX_BATCHSIZE": "4"}, {})


def test_several_workers_are_refused_for_one_process_owns_the_device_and_the_metrics() -> None:
    with pytest.raises(SettingsError, match="PRANET_WORKERS is not a setting"):
        load({"PRANET_WORKERS": "2"}, {})
    with pytest.raises(SystemExit):
        cli.main(["serve", "--workers", "2"])


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRANET_THRESHOLD", "1.5"),
        ("PRANET_THRESHOLD", "half"),
        ("PRANET_PORT", "70000"),
        ("PRANET_MAX_BATCH_SIZE", "0"),
        ("PRANET_INPUT_SIZE", "300"),
        ("PRANET_INPUT_SIZE", "544"),
        ("PRANET_DEVICE", "gpu"),
        ("PRANET_LOG_FORMAT", "xml"),
    ],
)
def test_an_invalid_value_is_named_with_its_meaning(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({variable: value}, {})
    name = variable.removeprefix("PRANET_").lower()
    assert variable in str(caught.value)
    assert value in str(caught.value)
    assert in_a_sentence(str(Settings.model_fields[name].description)) in str(caught.value)


def test_an_invalid_flag_is_named_as_it_was_given() -> None:
    with pytest.raises(SettingsError, match=r"^--max-batch-size is 0, but it should be greater than") as caught:
        load({"PRANET_MAX_BATCH_SIZE": "4"}, {"max_batch_size": "0"})
    assert "PRANET_" not in str(caught.value)


def test_help_describes_settings_as_other_commands_describe_their_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Serve REST, gRPC and Prometheus metrics." in said
    assert (
        "--host HOST address to listen on: 0.0.0.0 for all of IPv4 (Docker image), :: for IPv6 too "
        "(default: 127.0.0.1)" in said
    )
    assert "--maps {true,false} whether output=maps is available" in said
    assert "--port N REST port; 0 picks a free one (default: 8000)" in said


def test_every_invalid_value_is_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"PRANET_PORT": "x", "PRANET_THRESHOLD": "2"}, {})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRANET_PORT", "tcp://10.0.0.1:8000"),
        ("PRANET_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("PRANET_SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_kubernetes_service_links_are_ignored_with_a_warning(variable: str, value: str) -> None:
    loaded, warnings = load({variable: value}, {})
    assert loaded == Settings()
    assert variable in warnings[0]


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load({"PRANET_WEIGHTS": ""}, {}) == (Settings(), [])


def test_help_says_of_settings_what_their_fields_say() -> None:
    assert SETTING_TEXTS.read_text() == setting_texts()  # else run `make readme`


@pytest.mark.parametrize("name", ["api_tokens_file", "weights", "port"])
def test_an_empty_flag_is_refused_lest_a_service_be_open_to_everybody(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^--{name.replace('_', '-')} is empty; give a value"):
        load({}, {name: ""})
    assert load({}, {"root_path": ""}) == (Settings(), [])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"PRANET_CORS_ORIGINS": "*, viewer"},
            "PRANET_CORS_ORIGINS: viewer is not an origin; give, for example, https",
        ),
        ({"PRANET_CORS_ORIGINS": "https://a.example/path"}, "https://a.example/path is not an origin"),
        ({"PRANET_OTLP_ENDPOINT": "collector:4317"}, "collector:4317 is not the URL of a receiver; give, for example"),
        ({"PRANET_MAPS": "maybe"}, "PRANET_MAPS is 'maybe', but it should be true or false"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_one_that_can(given: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load(given, {})


def test_origins_are_those_of_pages_extensions_and_apps() -> None:
    given = "https://a.example:8443/, http://127.0.0.1:3000, chrome-extension://abcdef, *"
    assert load({"PRANET_CORS_ORIGINS": given}, {})[0].origins == [each.strip("/ ") for each in given.split(",")]


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({"PRANET_TLS_CERT": "a.pem"}, r"set --tls-cert \(PRANET_TLS_CERT\) and --tls-key \(PRANET_TLS_KEY\) together"),
        ({"PRANET_TLS_CLIENT_CA": "ca.pem"}, r"PRANET_TLS_CLIENT_CA\) needs --tls-cert \(PRANET_TLS_CERT\) and"),
        ({"PRANET_RATE_LIMIT": "5"}, r"^--rate-limit .* set --api-tokens-file \(PRANET_API_TOKENS_FILE\) too"),
        ({"PRANET_TOKEN_CONCURRENCY": "5"}, r"^--token-concurrency .* set --api-tokens-file"),
    ],
)
def test_settings_that_need_each_other_say_so(given: dict[str, str], advice: str) -> None:
    with pytest.raises(SettingsError, match=advice):
        load(given, {})


def test_variables_of_other_programs_are_none_of_our_business() -> None:
    assert load({"PATH": "/bin", "PRANETTE": "1"}, {}) == (Settings(), [])


@pytest.mark.parametrize(
    "given", [{"PRANET_MAX_IMAGE_BYTES": str(2**30)}, {"PRANET_DRAIN_SECONDS": "inf"}, {"PRANET_DRAIN_SECONDS": "nan"}]
)
def test_a_value_that_no_library_can_take_is_refused_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        load(given, {})
