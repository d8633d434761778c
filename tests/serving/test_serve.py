"""serve.py as its clients see it, and the model that it serves."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time

import numpy as np
import pytest
from helpers import content_of, file_bytes, gradient, pictures_of, refuses, run
from PIL import Image

import serve
from suite.files import atomic
from suite.model import modelfolder

pytestmark = pytest.mark.slow


def ask(serving, method, path, body=None, **headers):
    """The status, and what the JSON says."""
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content)


def instances(*pictures):
    """The body of a :predict."""
    coded = [base64.b64encode(each).decode() for each in pictures]
    return json.dumps({"instances": [{"image_bytes": {"b64": each}} for each in coded]})


def test_the_answers_are_those_of_predict(workspace, serving):
    paths = pictures_of(workspace)
    out, _ = run("predict.py", *paths, "--model", workspace.model, "--json", "--batch_size", 1)
    expected = [json.loads(line)["predictions"] for line in out.splitlines()]
    for path, predictions in zip(paths, expected):
        status, content = ask(serving, "POST", "/classify", content_of(path))
        assert status == 200 and content["model"] == serving.name and content["version"] in (50, 100)
        (result,) = content["results"]
        assert result["predictions"] == predictions and result["label"] == predictions[0]["label"]
    query = "/classify?top=1&threshold=1&image=%E7%8C%AB.png"
    _, content = ask(serving, "POST", query, content_of(paths[0]))
    (result,) = content["results"]
    assert result["image"] == "猫.png" and result["label"] == "unknown" and len(result["predictions"]) == 1


def test_as_tensorflow_serving(workspace, serving):
    path = "/v1/models/" + serving.name
    status, content = ask(serving, "GET", path)
    (version,) = content["model_version_status"]
    assert status == 200 and version["state"] == "AVAILABLE" and int(version["version"]) in (50, 100)
    data = [content_of(each) for each in pictures_of(workspace)]
    status, content = ask(serving, "POST", path + ":predict", instances(*data))
    assert status == 200 and len(content["predictions"]) == len(data)
    for each, picture in zip(content["predictions"], data):
        assert set(each) == {"probabilities", "label", "classes"}
        _, alone = ask(serving, "POST", "/classify?top=3", picture)
        by_name = {p["label"]: p["probability"] for p in alone["results"][0]["predictions"]}
        np.testing.assert_allclose(each["probabilities"], [by_name[c] for c in each["classes"]], atol=1e-5)
        assert each["label"] == alone["results"][0]["label"]
    # The only input need not be named.
    short = json.dumps({"instances": [{"b64": base64.b64encode(data[0]).decode()}]})
    assert ask(serving, "POST", path + ":predict", short)[1]["predictions"][0]["label"]
    status, content = ask(serving, "POST", path + ":predict", instances(data[0], b"no picture", data[1]))
    assert (
        status == 422 and content["code"] == "bad_picture" and content["error"].startswith("instances[1]: ")
    )


@pytest.mark.parametrize(
    "method, path, body, status, code",
    [
        ("GET", "/nothing", None, 404, "not_found"),
        ("POST", "/v1/models/other:predict", "{}", 404, "not_found"),
        ("GET", "/classify", None, 405, "wrong_method"),
        ("DELETE", "/", None, 405, "wrong_method"),
        ("POST", "/classify", b"", 422, "bad_picture"),
        ("POST", "/classify", b"\xff\xd8\xff\xe0 and then nothing", 422, "bad_picture"),
        ("POST", "/classify?top=0", b"x", 400, "bad_parameter"),
        ("POST", "/classify?top=two", b"x", 400, "bad_parameter"),
        ("POST", "/classify?threshold=nan", b"x", 400, "bad_parameter"),
        ("POST", "/classify?threshold=1.5", b"x", 400, "bad_parameter"),
        ("POST", ":predict", "{", 400, "bad_json"),
        ("POST", ":predict", '{"instances": [%s]}' % ", ".join(["{}"] * 9999), 413, "too_many_pictures"),
        ("POST", ":predict", b"\xff\xfe", 400, "bad_json"),
        ("POST", ":predict", "[" * 500, 400, "bad_json"),
        ("POST", ":predict", "[1, 2]", 400, "bad_request"),
        ("POST", ":predict", '{"instances": {}}', 400, "bad_request"),
        ("POST", ":predict", '{"instances": [[0, 1]]}', 400, "bad_request"),
        ("POST", ":predict", '{"instances": [null]}', 400, "bad_request"),
        ("POST", ":predict", '{"instances": [{"image_bytes": {"b64": "%"}}]}', 400, "bad_request"),
        ("POST", ":predict", '{"instances": [{"image_bytes": {"b64": 7}}]}', 400, "bad_request"),
        ("POST", ":predict", '{"instances": [{"images": [[0]]}]}', 400, "bad_request"),
        ("POST", ":predict", '{"instances": [{"b64": ""}], "signature_name": "pixels"}', 400, "bad_request"),
        (
            "POST",
            ":predict",
            '{"instances": [%s]}' % ", ".join(['{"b64": ""}'] * 65),
            413,
            "too_many_pictures",
        ),
    ],
)
def test_mistakes_are_named(serving, method, path, body, status, code):
    path = "/v1/models/" + serving.name + path if path == ":predict" else path
    answered, content = ask(serving, method, path, body)
    assert (answered, content["code"]) == (status, code) and content["error"]


def test_large_pictures_that_are_no_jpeg_are_refused(serving):
    data = file_bytes(Image.new("L", (5000, 5001)), "PNG")
    assert len(data) < 100000
    status, content = ask(serving, "POST", "/classify", data)
    assert status == 422 and "25000000 is the limit" in content["error"]
    status, _ = ask(serving, "POST", "/classify", file_bytes(Image.new("L", (5000, 5001)), "JPEG"))
    assert status == 200


def test_other_names_and_other_sites_are_refused(serving):
    data = file_bytes(gradient(), "JPEG")
    here = "localhost:%d" % serving.port
    assert ask(serving, "POST", "/classify", data, Host=here)[0] == 200
    assert ask(serving, "POST", "/classify", data, Host=here, Origin="http://" + here)[0] == 200
    model = "/v1/models/" + serving.name
    for path in (model, "/", "/nothing"):
        status, content = ask(serving, "GET", path, Host="evil.example")
        assert status == 403 and content["code"] == "wrong_host"
    for host in ("LOCALHOST", "localhost.:80", "[::1]:8000", "127.0.0.1:"):
        assert ask(serving, "GET", model, Host=host)[0] == 200
    for host in ("user@localhost", "localhost/x", "localhost#x", "127.0.0.1:x", "localhost:1:2", "[::1"):
        status, content = ask(serving, "GET", model, Host=host)
        assert status == 400 and content["code"] == "bad_request"
    # Who watches over servers asks by bare addresses, or by none; it learns nothing but that.
    assert ask(serving, "GET", "/healthz", Host="10.1.2.3:8000") == (200, {"status": "ok"})
    with socket.create_connection(("127.0.0.1", serving.port)) as old:
        old.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert old.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert ask(serving, "POST", "/healthz", b"", Host="10.1.2.3:8000")[0] == 403
    foreign = ["http://evil.example", "null", "http://evil//" + here, here]
    for headers in ({"Sec_Fetch_Site": "cross-site"}, *({"Origin": each} for each in foreign)):
        status, content = ask(serving, "POST", "/classify", data, Host=here, **headers)
        assert status == 403 and content["code"] == "other_site"


def test_a_line_for_each_request_where_asked(serving):
    ask(serving, "POST", "/classify?image=secret", b"secret")
    while not any("POST /classify of 6 bytes: 422 in " in line for line in serving.said):
        time.sleep(0.05)
    assert not any("secret" in line for line in serving.said)


def test_with_a_token_behind_another_name(workspace, start, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    serving = start(
        workspace.model, "--token_file", token, "--host", "0.0.0.0", "--allowed_host", "ai.example"
    )
    data = file_bytes(gradient(), "JPEG")
    assert ask(serving, "GET", "/healthz", Host="ai.example") == (200, {"status": "ok"})
    status, content = ask(serving, "POST", "/classify", data, Host="ai.example")
    assert status == 401 and content["code"] == "no_token"
    for wrong in ("Bearer 0123456789abcdeF", "0123456789abcdef", "Bearer \xe9"):
        assert ask(serving, "POST", "/classify", data, Authorization=wrong)[0] == 401
    assert (
        ask(serving, "POST", "/classify", data, Authorization="bearer 0123456789abcdef", Host="ai.example")[0]
        == 200
    )
    right = "Bearer 0123456789abcdef"
    assert ask(serving, "POST", "/classify", data, Authorization=right, Host="ai.example")[0] == 200
    assert ask(serving, "POST", "/classify", data, Authorization=right, Host="other.example")[0] == 403
    assert not any("warning" in line for line in serving.said)


def test_open_to_all_is_warned_of(workspace, start):
    serving = start(workspace.model, "--host", "0.0.0.0", "--sandbox")
    assert "warning: whoever reaches 0.0.0.0 may ask; see --token_file" in serving.said
    status, content = ask(serving, "POST", "/classify", file_bytes(gradient(), "PNG"), Host="any.example")
    assert status == 200
    status, content = ask(serving, "POST", "/classify", file_bytes(Image.new("L", (5000, 5001)), "PNG"))
    assert status == 422 and "25000000 is the limit" in content["error"]


def test_what_cannot_be_served(workspace, serving, tmp_path):
    refuses("serve.py", "--model", tmp_path / "none", says="no such model folder", status=1)
    says = "--port %d: " % serving.port
    out, err = run("serve.py", "--model", workspace.model, "--port", serving.port, status=1)
    assert says in err and "address already in use" in err.lower()
    (tmp_path / "token").write_text("short\n")
    says = "must be a token of 16 ASCII characters or more"
    refuses("serve.py", "--model", workspace.model, "--token_file", tmp_path / "token", says=says, status=1)


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["--host", "127.0.0.2"], {*serve.LOOPBACK, "127.0.0.2"}),
        (["--host", "0:0::1", "--allowed_host", "AI.example"], {*serve.LOOPBACK, "0:0::1", "ai.example"}),
        (["--host", "10.0.0.2", "--allowed_host", "ai.example"], {*serve.LOOPBACK, "ai.example"}),
    ],
)
def test_it_answers_under_the_address_that_it_prints(arguments, names):
    assert set(serve.allowed_hosts(serve.parse_options(arguments))) == names


def test_the_one_gpu_that_is_left_by_its_option_is_taken(copy, monkeypatch):
    """device.start hides the others, so that the second is the first to TensorFlow."""
    monkeypatch.setattr(serve.device, "gpus", lambda: ["the second"])
    chosen, choose = [], serve.device.choose
    monkeypatch.setattr(serve.device, "choose", lambda name: chosen.append(choose(name)) or choose("cpu"))
    options = serve.parse_options(["--device", "gpu:1"])
    serve.load(options, modelfolder.load_model(copy)).close()
    assert chosen[0][0] == "/gpu:0"


def test_at_other_addresses(workspace, start):
    serving = start(workspace.model, "--host", "::1")
    assert serving.said[-1].startswith("serving resnet at http://[::1]:")
    for host in ("a..b", "x" * 70):
        out, err = run("serve.py", "--model", workspace.model, "--host", host, status=1)
        assert "--host %s --port 8000: " % host in err
    for name in ("ai.example:8443", "http://ai.example", ""):
        run("serve.py", "--model", workspace.model, "--allowed_host", name, status=2)


def load(serving, data, until, failures, counts):
    while not until.is_set():
        try:
            status, content = ask(serving, "POST", "/classify", data)
            counts.append(status)
            if status != 200:
                failures.append((status, content))
        except OSError as error:
            failures.append(error)


def point_to(model, name):
    """As train.py does, so that nobody reads half of it."""
    with atomic.replacing_file(os.path.join(model, "checkpoint")) as path, open(path, "w") as file:
        file.write('model_checkpoint_path: "%s"\n' % name)


def test_a_better_checkpoint_takes_over_under_load(workspace, start, tmp_path):
    model = str(tmp_path / "served")
    shutil.copytree(workspace.model, model)
    shutil.rmtree(os.path.join(model, "best"))
    point_to(model, "model.ckpt-50")
    serving = start(model)

    def version():
        return ask(serving, "GET", "/v1/models/served")[1]["model_version_status"][0]["version"]

    assert version() == "50"
    until, failures, counts = threading.Event(), [], []
    data = content_of(pictures_of(workspace)[0])
    threads = [threading.Thread(target=load, args=(serving, data, until, failures, counts)) for _ in range(4)]
    for thread in threads:
        thread.start()
    # A damaged one is said once, and passed over.
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(
            os.path.join(model, "model.ckpt-100" + suffix), os.path.join(model, "model.ckpt-70" + suffix)
        )
    path = os.path.join(model, "model.ckpt-70.data-00000-of-00001")
    os.truncate(path, os.path.getsize(path) // 2)
    point_to(model, "model.ckpt-70")
    while not any("stays as it is" in line for line in serving.said):
        time.sleep(0.1)
    time.sleep(5)
    assert sum("stays as it is" in line for line in serving.said) == 1 and version() == "50"
    point_to(model, "model.ckpt-100")
    while version() != "100":
        time.sleep(0.1)
    assert "the model is that of step 100 now, before 50" in serving.said
    answered = len(counts)
    while len(counts) < answered + 20:
        time.sleep(0.1)
    until.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_what_was_accepted_is_answered_before_the_end(workspace, start):
    serving = start(workspace.model)
    body = instances(*[content_of(pictures_of(workspace)[0])] * 64).encode()
    head = "POST /v1/models/%s:predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n" % serving.name
    head += "Content-Length: %d\r\n\r\n" % len(body)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", serving.port))) for _ in range(4)
        ]
        for client in clients:
            client.sendall(head.encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 100 ")  # accepted
        serving.process.terminate()
        while "answering what was accepted" not in serving.said:
            time.sleep(0.05)
        status, content = ask(serving, "GET", "/healthz")
        assert (status, content) == (503, {"status": "stopping"})
        status, content = ask(serving, "POST", "/classify", b"x")
        assert (status, content["code"]) == (503, "stopping")
        for client in clients:
            client.sendall(body)
        for client in clients:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert serving.process.wait(60) == 0


def test_nothing_that_a_client_sends_is_a_fault_of_the_server(workspace):
    out, _ = run("tests/faults/fuzz_serving.py", "--model", workspace.model, "--requests", 1000)
    assert {"200", "400", "422"} <= set(out.split())


def test_ctrl_c_ends_it(workspace, start):
    assert start(workspace.model).stop(signal.SIGINT) == 130


def test_two_signals_at_once_end_it_like_one(workspace, start):
    """As a supervisor sends to all of a group; stopped meanwhile, it finds both at the same time."""
    serving = start(workspace.model)
    serving.process.send_signal(signal.SIGSTOP)
    serving.process.send_signal(signal.SIGTERM)
    serving.process.send_signal(signal.SIGINT)
    assert serving.stop(signal.SIGCONT) in (0, 130)
