"""The HTTP client: certificates, errors in one line, and retries."""

import os
import socket
import ssl
import subprocess
import threading
from contextlib import suppress

import pytest
from http_server import serving
from waiting import PATIENCE_S

from faro_ops import cli
from faro_ops.errors import one_line
from faro_ops.http import CA_FILE, CLIENT_CERTIFICATE, HttpClient, HttpError, HttpTimeout


def answer(request):
    """The token of the request. /unwell answers 503."""
    if request.path == "/unwell":
        return 503, {"error": "not now"}
    return 200, {"token": request.headers.get("Authorization")}


@pytest.fixture
def url():
    with serving(answer) as server:
        yield server.url


def test_an_error_has_the_status_and_the_servers_message_in_one_line(url):
    with pytest.raises(HttpError, match=r"/unwell: status 503: not now$") as error:
        HttpClient(url).get("/unwell")
    assert error.value.status == 503


def test_a_busy_server_is_retried_for_as_long_as_the_caller_can_wait():
    answers = iter([503, 503, 200])
    with serving(lambda _: (next(answers), {"n": 1})) as server:
        assert HttpClient(server.url).get("/", retry_for_s=PATIENCE_S) == {"n": 1}


BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n[1"


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", BODY, CHUNKED, ENDLESS])
def test_a_server_that_sends_its_answer_byte_by_byte_is_given_up(start, monkeypatch):
    monkeypatch.setattr("faro_ops.http.WHOLE_TIMEOUTS", 0.02)
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(start)
            while not over.wait(0.02):
                connection.sendall(b"1")

    threading.Thread(target=drip, daemon=True).start()
    client = HttpClient(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=60.0)
    failures = []

    def ask():
        try:
            client.get("/")
        except HttpError as error:
            failures.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    over.set()
    listener.close()
    assert not asking.is_alive(), "it would have held the caller without end"
    assert isinstance(failures[0], HttpTimeout)
    assert str(failures[0]).endswith("/: no complete answer within 1.2 s")


def test_a_server_that_does_not_answer_is_a_timeout_and_one_that_is_not_there_is_not():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(HttpTimeout):
            HttpClient(f"http://127.0.0.1:{port}", timeout_s=0.1).get("/")
    with pytest.raises(HttpError) as refused:
        HttpClient(f"http://127.0.0.1:{port}").get("/")
    assert not isinstance(refused.value, HttpTimeout)


def test_no_password_of_netrc_is_sent(url, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("faro_ops.http.is_loopback", lambda host: False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert HttpClient(url).get("/") == {"token": None}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A PEM file with a self-signed certificate of 127.0.0.1, and its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    names = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        f"{path}.key",
        "-out",
        f"{path}.crt",
    ]
    subprocess.run([*request, *names], check=True, capture_output=True)
    path.write_text(
        path.with_name("both.pem.crt").read_text() + path.with_name("both.pem.key").read_text()
    )
    return str(path)


def test_a_private_authority_and_a_client_certificate_come_from_the_environment(
    certificate, monkeypatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(answer, tls=context) as server:
        client = HttpClient(server.url, "secret")
        for name in (CA_FILE, CLIENT_CERTIFICATE):
            with pytest.raises(HttpError) as error:
                client.get("/")
            assert "\n" not in str(error.value)
            monkeypatch.setenv(name, certificate)
        assert client.get("/") == {"token": "Bearer secret"}


def test_an_address_with_a_password_is_refused_without_printing_it(capsys):
    address = "https://operator:hunter2@ray.example:8265"
    with pytest.raises(
        ValueError, match=r"^address=https://ray.example:8265 has a user or a password"
    ) as refused:
        HttpClient(address)
    assert "hunter2" not in str(refused.value)
    assert one_line(f"no answer from {address}") == "no answer from https://***@ray.example:8265"


def test_the_certificate_authority_may_be_an_option(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(CA_FILE, "unset")
    (tmp_path / "ca.pem").touch()
    (tmp_path / "jobs.csv").write_text("job\na\n")
    command = ["run", "--jobs", str(tmp_path / "jobs.csv"), "--policy", "AIAD"]
    assert cli.main([*command, "--ca-file", str(tmp_path / "no.pem")]) == 2
    assert "no such file; a PEM file with certificates" in capsys.readouterr().err
    assert os.environ[CA_FILE] == "unset"
    assert cli.main([*command, "--ca-file", str(tmp_path / "ca.pem")]) == 2
    assert os.environ[CA_FILE] == str(tmp_path / "ca.pem")
