"""Routes without a network: settings, contracts, where images are in requests, metadata."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.v1 import car_model_pb2, damage_pb2
from server.routes.address import credentials_of
from server.routes.contracts import INFERENCE_TYPES, prepare, resolve
from server.routes.descriptors import find_path, methods_of, read_set, read_types
from server.routes.fields import FieldPath, Found, Step
from server.routes.metadata import forwarded, notes, passing
from server.routes.settings import RouteSettings, UpstreamSettings
from server.routes.tensor_field import TensorField
from server.routes.wire import Budget, parts, tagged
from server.settings import GateSettings
from server.tensors import from_strings
from serving.settings import load_settings
from tests import shop
from tests.gates import VERDICT
from utility_gate.errors import ConfigError, InputError, TensorError
from utility_gate.inference import open_inference_pb2 as pb

MODEL_INFER = "inference.GRPCInferenceService/ModelInfer"
LOOK = shop.LookRequest


def path(dotted: str) -> FieldPath:
    return find_path(LOOK.DESCRIPTOR, dotted)


def images(dotted: str, request: Any, limit: int = 100) -> list[bytes]:
    data = request if isinstance(request, bytes) else request.SerializeToString()
    return [found.data for found in path(dotted).find(data, limit)]


class TestFields:
    def test_images_are_found_where_the_path_says(self) -> None:
        request = LOOK(
            id="7", image=b"one", images=[b"a", b"", b"c"], photo={"name": "n", "data": b"two"},
            photos=[{"data": b"x"}, {"name": "none"}, {"data": b"z"}], scores=[1, 2, 3],
        )  # fmt: skip
        assert images("image", request) == [b"one"]
        assert images("images", request) == [b"a", b"", b"c"]
        assert images("photo.data", request) == [b"two"]
        assert path("photos.data").find(request.SerializeToString(), 9) == [
            Found(0, b"x"), Found(1, b""), Found(2, b"z"),
        ]  # fmt: skip

    def test_what_was_not_set_is_no_image_where_that_can_be_told(self) -> None:
        empty = LOOK(id="7")
        assert images("image", empty) == [b""], "proto3 does not tell an empty one from none"
        assert images("extra", empty) == []
        assert images("extra", LOOK(extra=b"")) == [b""]
        assert images("photo.data", empty) == []
        assert images("photo.data", LOOK(photo={})) == [b""]
        assert images("images", empty) == images("photos.data", empty) == []

    def test_what_parsers_read_differently_is_refused(self) -> None:
        image = LOOK(image=b"good").SerializeToString()
        for request in (
            image + LOOK(image=b"bad").SerializeToString(),  # the last one counts
            LOOK(photo={"data": b"a"}).SerializeToString() * 2,  # merged
        ):
            dotted = "image" if request.startswith(image) else "photo.data"
            with pytest.raises(InputError, match="expected one"):
                images(dotted, request)
        long_tag = b"\x92\x80\x80\x80\x80\x01" + b"\x04evil"  # field 2, in six bytes
        cut_off = image[:-1]
        group = b"\x13\x14"  # field 2 as a group
        for request in (
            long_tag,
            cut_off,
            group,
            b"\x00\x01",
            b"\x07",
            b"\x12\xff\xff\xff\xff\x0f",
        ):
            with pytest.raises(InputError):
                images("image", request)

    def test_a_field_of_another_kind_is_not_the_image(self) -> None:
        number = b"\x10\x07"  # field 2 as a number: parsers do not know it
        assert images("image", number + LOOK(image=b"good").SerializeToString()) == [b"good"]

    def test_there_are_limits(self) -> None:
        with pytest.raises(InputError, match="at most 2 elements of images, got 3"):
            images("images", LOOK(images=[b"a"] * 3), limit=2)
        with pytest.raises(InputError, match="at most 20000 fields"):
            images("image", b"\x08\x01" * 20_001)

    def test_elements_are_taken_out_and_the_rest_stays_as_it_is(self) -> None:
        request = LOOK(id="7", images=[b"a", b"b", b"c"], scores=[1.5])
        unknown = b"\xfa\x3f\x03abc"  # a field that this contract does not have
        data = request.SerializeToString() + unknown
        less = path("images").without(data, {0, 2})
        assert LOOK.FromString(less).images == [b"b"]
        assert less.endswith(unknown)
        photos = LOOK(photos=[{"name": n, "data": b"x"} for n in "pqr"]).SerializeToString()
        kept = LOOK.FromString(path("photos.data").without(photos, {1})).photos
        assert [photo.name for photo in kept] == ["p", "r"]
        assert path("images").without(data, ()) == data

    def test_elements_inside_of_a_message_are_taken_out(self) -> None:
        inner = FieldPath((Step("a", 5, False, True), Step("b", 300, True, False)))
        content = b"".join(tagged(300, text) for text in (b"x" * 200, b"y", b"z"))
        data = b"\x08\x01" + tagged(5, content) + b"\x10\x02"
        assert [one.data for one in inner.find(data, 9)] == [b"x" * 200, b"y", b"z"]
        less = inner.without(data, {0})
        assert less == b"\x08\x01" + tagged(5, tagged(300, b"y") + tagged(300, b"z")) + b"\x10\x02"

    @given(st.binary(max_size=60))
    def test_any_bytes_are_a_message_or_an_input_error(self, data: bytes) -> None:
        for dotted in ("image", "photos.data", "photo.data"):
            try:
                found = images(dotted, data)
            except InputError:
                continue
            assert all(len(one) <= len(data) for one in found)

    @settings(max_examples=300)
    @given(st.data())
    def test_what_protobuf_reads_is_what_is_judged(self, data: st.DataObject) -> None:
        """Messages cut, joined and changed at random: if we see images, protobuf sees the same."""
        parts_ = data.draw(
            st.lists(
                st.sampled_from(
                    [LOOK(image=b"A"), LOOK(images=[b"B", b"C"]), LOOK(photo={"data": b"D"}),
                     LOOK(photos=[{"data": b"E"}]), LOOK(id="i", scores=[1, 2])]
                ),
                max_size=4,
            )
        )  # fmt: skip
        raw = bytearray(b"".join(one.SerializeToString() for one in parts_))
        for _ in range(data.draw(st.integers(0, 2))):
            if raw:
                at = data.draw(st.integers(0, len(raw) - 1))
                raw[at] = data.draw(st.integers(0, 255))
        try:
            read = LOOK.FromString(bytes(raw))
        except Exception:  # noqa: BLE001 - then the pipeline refuses it too
            return
        try:
            found = {d: images(d, bytes(raw)) for d in ("image", "images", "photos.data")}
        except InputError:
            return
        assert found["image"] == [read.image]
        assert found["images"] == list(read.images)
        assert found["photos.data"] == [photo.data for photo in read.photos]


def infer(strings: list[bytes], raw: bool = True, shape: list[int] | None = None) -> Any:
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(
        name="image", datatype="BYTES", shape=[len(strings)] if shape is None else shape
    )
    if raw:
        request.raw_input_contents.append(from_strings(strings))
    else:
        tensor.contents.bytes_contents.extend(strings)
    return request


class TestTensors:
    FIELD = TensorField("image")

    def find(self, request: Any, limit: int = 16) -> list[bytes]:
        return [one.data for one in self.FIELD.find(request.SerializeToString(), limit)]

    @pytest.mark.parametrize("raw", [True, False])
    @pytest.mark.parametrize("shape", [[3], [3, 1], [1, 3]])
    def test_its_elements_are_found_in_either_form(self, raw: bool, shape: list[int]) -> None:
        assert self.find(infer([b"a", b"", b"c"], raw, shape)) == [b"a", b"", b"c"]

    def test_other_tensors_are_not_looked_at(self) -> None:
        request = pb.ModelInferRequest()
        numbers = request.inputs.add(name="scores", datatype="FP32", shape=[50_000])
        numbers.contents.fp32_contents.extend([0.5] * 50_000)
        words = request.inputs.add(name="words", datatype="BYTES", shape=[30_000])
        words.contents.bytes_contents.extend([b"w"] * 30_000)
        tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(b"x")
        assert self.find(request) == [b"x"]
        raw = pb.ModelInferRequest()
        raw.inputs.add(name="scores", datatype="FP32", shape=[2])
        raw.inputs.add(name="image", datatype="BYTES", shape=[1])
        raw.raw_input_contents.extend([struct.pack("<2f", 1, 2), from_strings([b"x"])])
        assert self.find(raw) == [b"x"]

    def test_a_request_without_it_has_no_image(self) -> None:
        request = pb.ModelInferRequest()
        request.inputs.add(name="scores", datatype="FP32", shape=[0])
        assert self.find(request) == []

    def test_what_is_malformed_is_named(self) -> None:
        twice = infer([b"a"])
        twice.inputs.add(name="image", datatype="BYTES", shape=[1])
        number = infer([b"a"])
        number.inputs[0].datatype = "FP32"
        both = infer([b"a"])
        both.inputs[0].contents.bytes_contents.append(b"b")
        missing = infer([b"a"])
        missing.inputs.add(name="other", datatype="FP32", shape=[1])
        for request, message in (
            (twice, "one tensor of this name"),
            (number, "datatype BYTES"),
            (both, "raw_input_contents of all tensors"),
            (missing, "raw_input_contents of all 2 tensors"),
            (infer([b"a"], shape=[2]), "2 elements, as the shape says"),
            (infer([b"a"], shape=[-1]), "a shape of 1 to 16"),
            (infer([b"a"], shape=[1] * 17), "at most 16 dimensions"),
            (infer([b"a"] * 17), "a shape of 1 to 16"),
        ):
            with pytest.raises(TensorError, match=message):
                self.find(request)
        renamed = tagged(5, tagged(1, b"other") + tagged(1, b"image") + tagged(2, b"BYTES"))
        with pytest.raises(TensorError, match="each field of a tensor once"):
            self.FIELD.find(renamed, 16)

    def test_what_servers_might_read_elsewhere_is_refused(self) -> None:
        """Triton and MLServer give a raw content to the next tensor that needs one."""

        def two() -> Any:
            request = pb.ModelInferRequest()
            request.inputs.add(name="scores", datatype="FP32", shape=[1])
            request.inputs.add(name="image", datatype="BYTES", shape=[1])
            request.raw_input_contents.extend([from_strings([b"bad"]), from_strings([b"good"])])
            return request

        typed, empty, shared, decoy = two(), two(), two(), infer([b"good"])
        typed.inputs[0].contents.fp32_contents.append(1)
        empty.inputs[0].contents.SetInParent()
        shared.inputs[0].parameters["shared_memory_region"].string_param = "region"
        decoy.inputs[0].parameters["shared_memory_region"].string_param = "region"
        beside, nowhere = infer([b"good"], raw=False), infer([b"good"], raw=False)
        beside.inputs[0].contents.uint_contents.append(1)
        nowhere.inputs[0].parameters["shared_memory_offset"].int64_param = 1
        for request, message in (
            (typed, "contents of their own or in shared memory"),
            (empty, "contents of their own or in shared memory"),
            (shared, "contents of their own or in shared memory"),
            (decoy, "its elements in the request, got shared memory"),
            (nowhere, "its elements in the request, got shared memory"),
            (beside, "bytes_contents alone, got other contents"),
        ):
            with pytest.raises(TensorError, match=message):
                self.find(request)
        fine = infer([b"good"])
        fine.inputs[0].parameters["binary_data"].bool_param = True
        assert self.find(fine) == [b"good"]

    @pytest.mark.parametrize("raw", [True, False])
    def test_elements_are_taken_out(self, raw: bool) -> None:
        request = infer([b"a", b"b", b"c"], raw, [3, 1]).SerializeToString()
        less = pb.ModelInferRequest.FromString(self.FIELD.without(request, {1}))
        assert list(less.inputs[0].shape) == [2, 1]
        assert self.find(less) == [b"a", b"c"]
        assert less.model_name == "m"

    def test_nothing_is_taken_out_where_others_may_belong_to_it(self) -> None:
        request = infer([b"a", b"b"], raw=False)
        request.inputs.add(name="ids", datatype="INT32", shape=[2]).contents.int_contents.extend(
            [1, 2]
        )
        with pytest.raises(TensorError, match="no other tensor"):
            self.FIELD.without(request.SerializeToString(), {0})

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_request_or_an_input_error(self, data: bytes) -> None:
        with contextlib.suppress(InputError):
            self.FIELD.find(data, 4)


class TestContracts:
    def test_types_come_from_a_file_of_descriptors(self, tmp_path: Path) -> None:
        saved = shop.save_descriptors(tmp_path / "shop.binpb")
        types = read_types(read_set(saved), [shop.SERVICE, "no.such.Service"])
        assert set(types) == {shop.LOOK, shop.BROWSE, shop.WATCH, shop.UPLOAD, shop.CHAT}
        assert not types[shop.LOOK].streams
        assert (types[shop.WATCH].streams_requests, types[shop.WATCH].streams_answers) == (
            False,
            True,
        )
        route = RouteSettings(method=shop.LOOK, upstream="shop", image_field="photo.data")
        _, field = resolve(route, types)
        assert field == FieldPath((Step("photo", 4, False, True), Step("data", 2, False, False)))

    def test_names_of_two_contracts_do_not_meet(self, tmp_path: Path) -> None:
        """tritonclient and this process have messages of the same names; so may two pipelines."""
        clash = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
        clash.name, clash.message_type[0].name = "grpc_service.proto", "Strange"
        del clash.service[:]
        service = clash.service.add(name="GRPCInferenceService")
        service.method.add(
            name="M", input_type=".inference.Strange", output_type=".inference.Strange"
        )
        for _ in range(2):
            types = read_types([clash], ["inference.GRPCInferenceService"])
            assert list(types) == ["inference.GRPCInferenceService/M"]

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ("picture", "expected one of the fields id, image.*got picture"),
            ("id", "expected bytes in id"),
            ("image.data", "expected a message in image"),
            ("photo", "expected bytes in photo"),
            ("photo.pixels", "fields name, data of shop.v1.Photo, got pixels"),
        ],
    )
    def test_a_field_that_does_not_fit_is_named(self, field: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            path(field)

    def test_what_files_hold_is_checked_before_the_start(self, tmp_path: Path) -> None:
        saved = shop.save_descriptors(tmp_path / "shop.binpb")
        routes = (RouteSettings(method=shop.LOOK, upstream="shop", image_field="picture"),)

        def expect(message: str, routes: Any = routes, **changes: Any) -> None:
            values = {"addresses": ["127.0.0.1:1"], "descriptors": saved} | changes
            with pytest.raises(ConfigError, match=message):
                prepare(routes, {"shop": UpstreamSettings(**values)})

        expect("route shop.v1.ShopService/Look: image_field picture: expected one of")
        expect("upstreams.shop: descriptors: .*No such file", descriptors=tmp_path / "none")
        saved.write_bytes(b"no descriptors")
        expect("upstreams.shop: descriptors: .*protoc --include_imports.*got other bytes")
        shop.save_descriptors(saved, imports=False)
        expect("upstreams.shop: .*shop.proto does not fit.*imports included")
        shop.save_descriptors(saved)
        expect("upstreams.shop: ca: expected", ca=saved)
        other = (RouteSettings(method=f"{shop.SERVICE}/Sell", upstream="shop", image_field="x"),)
        expect("Sell: expected a method that the upstream shop has, one of .*Look", other)
        inference = (RouteSettings(method=MODEL_INFER, upstream="shop", image_field="image"),)
        expect(r'expected image_field "inputs.NAME"', inference, descriptors=None)

    def test_everybody_knows_the_open_inference_protocol(self) -> None:
        route = RouteSettings(method=MODEL_INFER, upstream="m", image_field="inputs.my.image:0")
        known, field = resolve(route, INFERENCE_TYPES)
        assert field == TensorField("my.image:0")
        assert not known.streams
        stream = RouteSettings(
            method=MODEL_INFER.replace("/Model", "/ModelStream"),
            upstream="m",
            image_field="inputs.x",
        )
        assert resolve(stream, INFERENCE_TYPES)[0].streams_requests


class TestSettings:
    TOML = """
        [predictors]
        general = "embedded"
        damage = "embedded"
        [[routes]]
        method = "pipelines.v1.DamageService/Assess"
        upstream = "damage"
        image_field = "photos.data"
        images = "filter"
        task = "damage"
        mode = "SHADOW"
        review = "stop"
        on_gate_failure = "open"
        timeout = 2.5
        [[routes]]
        method = "pipelines.v1.DamageService/*"
        upstream = "damage"
        [upstreams.damage]
        addresses = ["127.0.0.1:50061", "dns:///damage:50061"]
        metadata = { authorization = "Bearer secret" }
        breaker = { consecutive = 3 }
    """

    def load(self, folder: Path, *changes: tuple[str, str]) -> GateSettings:
        text = self.TOML
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (folder / "gate.toml").write_text(text)
        return load_settings(GateSettings, folder / "gate.toml")

    def test_they_are_read(self, tmp_path: Path) -> None:
        loaded = self.load(tmp_path)
        judged, passing = loaded.routes
        assert (judged.service, judged.name) == ("pipelines.v1.DamageService", "Assess")
        assert (judged.images, judged.mode, judged.timeout) == ("filter", "SHADOW", 2.5)
        assert passing.name == "*"
        damage = loaded.upstreams["damage"]
        assert damage.breaker.consecutive == 3
        assert damage.breaker.ejection == 1.0
        assert "secret" not in repr(loaded)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("Service/Assess", "Service.Assess", 'write "package.Service/Method"'),
            ('"photos.data"', '"photos..data"', "write a path of fields"),
            ("timeout = 2.5", "timeuot = 2.5", "timeuot: Extra inputs are not permitted"),
            ('images = "filter"', 'images = "some"', "'all', 'any' or 'filter'"),
            ('task = "damage"', 'task = "cars"', "expected one of general, damage; got 'cars'"),
            ('upstream = "damage"', 'upstream = "dmg"', "expected one of damage; got 'dmg'"),
            ("pipelines.v1.DamageService/*", "utility_gate.v1.UtilityGateService/*", "itself"),
            ("pipelines.v1.DamageService/*", "pipelines.v1.DamageService/Assess", "one route"),
            ('image_field = "photos.data"', "", "images, mode, .* without image_field"),
            ("Service/Assess", "Service/*", "leave image_field out, and name the methods"),
            ('"dns:///damage:50061"', '"127.0.0.1:50061"', "name each address once"),
            ("authorization =", '"grpc-timeout" =', "write a name of lower-case letters"),
            ("Bearer secret", "Bearer s\\u00e9cret", "write visible ASCII"),
            ("consecutive = 3", "ejection = 60", "at least the seconds of ejection"),
            ("consecutive = 3", "least_calls = 10001", "less than or equal to 10000"),
        ],
    )
    def test_what_is_wrong_is_told_with_what_to_write(
        self, tmp_path: Path, old: str, new: str, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            self.load(tmp_path, (old, new))
        assert "secret" not in str(caught.value)


def test_the_example_fits_the_pipelines_of_this_project() -> None:
    example = load_settings(GateSettings, Path(__file__).parents[2] / "configs" / "routes.toml")
    types = methods_of(damage_pb2.DESCRIPTOR.services_by_name["DamageService"])
    types |= methods_of(car_model_pb2.DESCRIPTOR.services_by_name["CarModelService"])
    judged = [route for route in example.routes if route.image_field]
    assert len(judged) == 2
    for route in judged:
        known, field = resolve(route, types)
        assert not known.streams
        assert isinstance(field, FieldPath)


class TestMetadata:
    SENT = (
        ("authorization", "Bearer key"), ("user-agent", "x"), ("te", "trailers"),
        ("grpc-accept-encoding", "gzip"), (":authority", "gate"), ("host", "gate"),
        ("x-tenant", "7"), ("picture-bin", b"\0"), ("x-request-id", "caller"),
        ("utility-gate-decision", "USEFUL"), ("utility-gate-anything", "USEFUL"),
        ("tracestate", "old"), ("grpc-status-details-bin", b"forged"),
        ("traceparent", "old"), ("x-api-key", "caller's"),
    )  # fmt: skip

    def test_what_is_meant_for_the_pipeline_goes_on(self) -> None:
        told = notes([VERDICT])
        own = (("x-request-id", "7"), ("traceparent", "new"))
        got = forwarded(self.SENT, {"x-api-key": "ours"}, told, own, with_authorization=False)
        assert got[:2] == (("x-tenant", "7"), ("picture-bin", b"\0"))
        assert dict(got)["x-api-key"] == "ours"
        assert dict(got)["traceparent"] == "new"
        assert dict(got)["x-request-id"] == "7"
        assert dict(got)["utility-gate-utility"] == "0.900000"
        assert len(dict(got)) == len(got), "nothing twice"
        assert not {"tracestate", "grpc-status-details-bin", "user-agent"} & set(dict(got))
        assert "authorization" not in dict(got)
        kept = forwarded(self.SENT, {}, (), (), with_authorization=True)
        assert ("authorization", "Bearer key") in kept

    def test_a_pipeline_s_details_and_pauses_come_back(self) -> None:
        sent = (("grpc-status-details-bin", b"x"), ("grpc-retry-pushback-ms", "5"), ("a", "b"))
        assert passing((*sent, ("grpc-encoding", "gzip"))) == sent

    def test_verdicts_are_told_in_order(self) -> None:
        assert notes([]) == ()
        assert dict(notes([VERDICT, VERDICT])) == {
            "utility-gate-decision": "USEFUL,USEFUL",
            "utility-gate-mode": "ENFORCE,ENFORCE",
            "utility-gate-task": "general",
            "utility-gate-utility": "0.900000,0.900000",
            "utility-gate-predictor-version": "1",
        }

    def test_a_list_that_is_too_long_is_left_out_whole(self) -> None:
        told = dict(notes([VERDICT] * 113))
        assert told["utility-gate-utility"].count(",") == 112
        told = dict(notes([VERDICT] * 300))
        assert "utility-gate-utility" not in told
        assert told["utility-gate-task"] == "general"


def test_a_key_without_a_certificate_is_not_taken_for_plaintext(tmp_path: Path) -> None:
    settings = UpstreamSettings(addresses=("127.0.0.1:1",), key=tmp_path / "key.pem")
    with pytest.raises(ConfigError, match="certificate"):
        credentials_of(settings)


def test_a_budget_is_for_the_whole_request() -> None:
    budget = Budget(3)
    assert len(list(parts(memoryview(b"\x08\x01\x08\x01"), budget))) == 2
    with pytest.raises(InputError):
        list(parts(memoryview(b"\x08\x01\x08\x01"), budget))
