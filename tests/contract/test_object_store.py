"""The contract of the object store, run on every backend: in memory, in a folder and on a real SeaweedFS."""

from __future__ import annotations

import hashlib
import socket
import time
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from femur_tasks import storage
from femur_tasks.errors import DigestMismatch, FemurError, NotFound, Unreachable
from femur_tasks.folder_store import FolderStore
from femur_tasks.settings import Settings
from femur_tasks.storage import MemoryStore, S3Store, digest_in, open_store

Store = MemoryStore | FolderStore | S3Store
LARGE = bytes(range(256)) * (12 << 12)


@pytest.fixture(params=["memory", "folder", "seaweedfs"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    if request.param == "seaweedfs":
        return open_store(request.getfixturevalue("store_settings"))
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def fresh() -> bytes:
    """Bytes that no store has seen: the real one is shared by all tests."""
    return uuid.uuid4().bytes


@pytest.fixture
def drop() -> str:
    """A folder under incoming/ of this test's own."""
    return f"incoming/{uuid.uuid4().hex}"


class TestObjectStore:
    def test_key_is_the_digest_of_the_bytes(self, store: Store) -> None:
        # printf abc | sha256sum, as in FIPS 180-2
        digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert store.put(b"abc", "raw") == f"raw/{digest}"

    @pytest.mark.parametrize("data", [b"", b"femur", LARGE], ids=["empty", "small", "12 MiB"])
    def test_what_is_put_is_got(self, store: Store, data: bytes) -> None:
        key = store.put(data, "shards")
        assert store.get(key) == data
        found = store.stat(key)
        assert found is not None
        assert (found.key, found.size) == (key, len(data))
        assert abs(datetime.now(UTC) - found.modified_at) < timedelta(hours=1), "the data may be there already"
        assert found in list(store.list("shards/"))

    def test_what_is_put_again_counts_as_new_and_is_not_sent_again(
        self, store: Store, fresh: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "_FRESH", timedelta(0))
        key = store.put(fresh, "shards")
        first, sent = store.stat(key), store.bytes_sent
        time.sleep(1.1)  # S3 tells seconds
        assert store.put(fresh, "shards") == key
        second = store.stat(key)
        assert first is not None
        assert second is not None
        assert second.modified_at > first.modified_at
        assert (store.get(key), store.bytes_sent) == (fresh, sent)

    def test_file_and_bytes_give_the_same_key_and_content(self, store: Store, fresh: bytes, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(fresh)
        key = store.put(tmp_path / "file", "raw")
        assert store.get(key) == fresh
        assert store.put(fresh, "raw") == key

    def test_large_file_is_put_whole(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(LARGE[::-1])
        assert hashlib.sha256(store.get(store.put(tmp_path / "file", "raw"))).digest() == (
            hashlib.sha256(LARGE[::-1]).digest()
        )

    def test_object_sent_in_parts_is_known_by_its_etag_and_mended_when_damaged(
        self, store: Store, fresh: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "_PART", 5 << 20)
        data = fresh + LARGE
        with monkeypatch.context() as unread:
            unread.setattr(S3Store, "_read", lambda *_: pytest.fail("read back, though its etag says it is whole"))
            key = store.put(data, "raw")
        found = store.stat(key)
        assert found is not None
        if isinstance(store, S3Store):
            assert found.etag.endswith("-3"), "or it was not sent in parts"
            assert found.etag == storage.digests(data)[1]
        sent = store.bytes_sent
        assert (store.put(data, "raw"), store.bytes_sent) == (key, sent)
        store.put_named(b"damaged" + LARGE, key)
        with pytest.raises(DigestMismatch):
            store.get(key)
        assert store.put(data, "raw") == key
        assert store.get(key) == data

    @pytest.mark.parametrize("data", [b"sent once", LARGE], ids=["small", "12 MiB"])
    def test_second_put_moves_nothing(self, store: Store, data: bytes) -> None:
        store.put(data, "raw")
        sent = store.bytes_sent
        store.put(data, "raw")
        assert store.bytes_sent == sent

    def test_first_put_counts_what_it_sent(self, store: Store, fresh: bytes) -> None:
        sent = store.bytes_sent
        store.put(fresh, "raw")
        assert store.bytes_sent - sent == len(fresh)

    @pytest.mark.parametrize("damage", [b"X" * 16, b"shorter"], ids=["same size", "another size"])
    def test_damaged_object_is_never_handed_out(
        self, store: Store, fresh: bytes, damage: bytes, tmp_path: Path
    ) -> None:
        key = store.put(fresh, "raw")
        store.put_named(damage, key)
        with pytest.raises(DigestMismatch, match=digest_in(key)):
            store.get(key)
        with pytest.raises(DigestMismatch):
            store.download(key, tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("damage", [b"X" * 16, b"shorter"], ids=["same size", "another size"])
    def test_damaged_object_is_replaced_by_the_next_put(self, store: Store, fresh: bytes, damage: bytes) -> None:
        key = store.put(fresh, "raw")
        store.put_named(damage, key)
        assert store.put(fresh, "raw") == key
        assert store.get(key) == fresh

    def test_missing_object_is_not_found(self, store: Store, drop: str, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=drop):
            store.get(f"{drop}/none")
        with pytest.raises(NotFound):
            store.download(f"{drop}/none", tmp_path / "file")
        assert list(tmp_path.iterdir()) == []
        assert store.stat(f"{drop}/none") is None

    def test_folder_of_objects_is_no_object(self, store: Store, drop: str) -> None:
        store.put_named(b"x", f"{drop}/a")
        assert store.stat(drop) is None
        with pytest.raises(NotFound):
            store.get(drop)

    def test_failed_download_leaves_the_file_that_was_there(self, store: Store, drop: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"before")
        with pytest.raises(NotFound):
            store.download(f"{drop}/none", tmp_path / "file")
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"before")]

    def test_download_writes_the_object(self, store: Store, fresh: bytes, tmp_path: Path) -> None:
        store.download(store.put(fresh, "raw"), tmp_path / "file")
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", fresh)]

    def test_named_object_is_replaced_and_gets_another_etag(self, store: Store, drop: str) -> None:
        seen = []
        for data in (b"first", b"other", b"first"):
            store.put_named(data, f"{drop}/a.zip")
            assert store.get(f"{drop}/a.zip") == data
            found = store.stat(f"{drop}/a.zip")
            assert found is not None
            seen.append(found.etag)
        assert seen[0] == seen[2] != seen[1]
        assert all(seen)

    def test_list_is_in_the_order_of_the_keys(self, store: Store, drop: str) -> None:
        # "-" and "." sort before "/", which a store of nested folders easily gets wrong
        names = ["a-1", "a.zip", "a/1", "a/2/3", "a0", "b"]
        for name in reversed(names):
            store.put_named(name.encode(), f"{drop}/{name}")
        listed = list(store.list(f"{drop}/"))
        assert [found.key for found in listed] == [f"{drop}/{name}" for name in names]
        assert [found.size for found in listed] == [len(name) for name in names]
        assert listed[1] == store.stat(f"{drop}/a.zip")

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [("a", ["a-1", "a/1", "a/2"]), ("a/", ["a/1", "a/2"]), ("a/1", ["a/1"]), ("none", [])],
        ids=["part of a name", "folder", "one object", "nothing"],
    )
    def test_list_takes_any_prefix(self, store: Store, drop: str, prefix: str, expected: list[str]) -> None:
        for name in ("a-1", "a/1", "a/2", "b/a"):
            store.put_named(b"x", f"{drop}/{name}")
        assert [found.key for found in store.list(f"{drop}/{prefix}")] == [f"{drop}/{name}" for name in expected]

    def test_deleted_object_is_gone(self, store: Store, drop: str) -> None:
        store.put_named(b"x", f"{drop}/a")
        store.delete(f"{drop}/a")
        assert store.stat(f"{drop}/a") is None
        assert list(store.list(drop)) == []

    def test_deleting_nothing_is_no_error(self, store: Store, drop: str) -> None:
        store.delete(f"{drop}/none")

    def test_names_with_blanks_and_umlauts_work(self, store: Store, drop: str) -> None:
        key = f"{drop}/Hüfte links (2) + 100%.zip"
        store.put_named(b"x", key)
        assert store.get(key) == b"x"
        assert [found.key for found in store.list(drop)] == [key]

    def test_presigned_link_names_the_object(self, store: Store, fresh: bytes) -> None:
        key = store.put(fresh, "raw")
        assert key in store.presign(key, timedelta(minutes=5))


@pytest.mark.parametrize("key", ["incoming/../../planted", "/etc/planted", ""])
def test_no_key_leaves_the_folder(tmp_path: Path, key: str) -> None:
    store = FolderStore(tmp_path / "objects")
    for ask in (store.get, store.stat, store.delete, lambda name: store.put_named(b"x", name)):
        with pytest.raises(FemurError, match="Expected a key"):
            ask(key)
    assert list(tmp_path.rglob("planted")) == []


class TestSeaweedFS:
    """What only a store behind a network can do wrong."""

    def test_presigned_link_serves_the_bytes_to_anyone(self, store_settings: Settings, fresh: bytes) -> None:
        store = open_store(store_settings)
        link = store.presign(store.put(fresh, "raw"), timedelta(minutes=5))
        with urllib.request.urlopen(link, timeout=10) as answer:  # noqa: S310
            assert answer.read() == fresh

    def test_link_without_its_signature_serves_nothing(self, store_settings: Settings, fresh: bytes) -> None:
        store = open_store(store_settings)
        link = store.presign(store.put(fresh, "raw"), timedelta(minutes=5))
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(link.split("?")[0], timeout=10)  # noqa: S310
        assert refused.value.code == 403

    @pytest.mark.parametrize(
        "wrong",
        [{"s3_secret_key": SecretStr("guessed")}, {"s3_access_key": "nobody"}, {"s3_access_key": ""}],
        ids=["secret", "user", "anonymous"],
    )
    def test_wrong_credentials_are_unreachable_with_a_hint(
        self, store_settings: Settings, wrong: dict[str, object]
    ) -> None:
        with pytest.raises(Unreachable) as refused:
            open_store(store_settings.model_copy(update=wrong))
        assert "FEMUR_S3_SECRET_KEY" in refused.value.todo
        assert "guessed" not in str(refused.value)

    def test_endpoint_that_is_no_address_is_unreachable_with_a_hint(self, store_settings: Settings) -> None:
        with pytest.raises(Unreachable) as refused:
            open_store(store_settings.model_copy(update={"s3_endpoint": "http://host:1/path"}))
        assert "FEMUR_S3_ENDPOINT" in refused.value.todo

    def test_store_that_was_never_started_is_unreachable(self, tmp_path: Path) -> None:
        with pytest.raises(Unreachable) as refused:
            open_store(Settings(home=tmp_path, s3_endpoint="", _env_file=None))
        assert "femur up" in refused.value.todo

    def test_nobody_listening_is_unreachable_within_seconds(self, store_settings: Settings) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(Unreachable) as refused:
            open_store(store_settings.model_copy(update={"s3_endpoint": f"127.0.0.1:{free}"}))
        assert time.monotonic() - began < 10
        assert "femur up" in refused.value.todo

    def test_missing_bucket_is_made(self, store_settings: Settings) -> None:
        store = open_store(store_settings.model_copy(update={"s3_bucket": f"b{uuid.uuid4().hex[:20]}"}))
        assert list(store.list("")) == []
        assert store.get(store.put(b"x", "raw")) == b"x"

    def test_local_fault_is_not_blamed_on_the_store(self, store_settings: Settings, tmp_path: Path) -> None:
        store = open_store(store_settings)
        with pytest.raises(FileNotFoundError):
            store.put(tmp_path / "none", "raw")
        with pytest.raises(FileNotFoundError):
            store.download(store.put(b"x", "raw"), tmp_path / "no folder" / "file")
