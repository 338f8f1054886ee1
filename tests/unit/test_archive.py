"""The archive reader gives what git put in, and survives whatever else calls itself an archive."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise, repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import ArchiveBroken
from daemon.sync.archive import ArchiveLimits, ArchiveReader, Member, read_archive
from daemon.sync.gitobjects import blob_sha

LIMITS = ArchiveLimits(max_file_bytes=5_000_000, max_total_bytes=100_000_000)
TOP = "repo-0123456"


def chunked(data: bytes, size: int = 4096) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, limits: ArchiveLimits = LIMITS, *, size: int = 4096) -> list[Member]:
    return list(read_archive(chunked(data, size), limits=limits))


def limited(**changes: int) -> ArchiveLimits:
    return ArchiveLimits(**{"max_file_bytes": 5_000_000, "max_total_bytes": 100_000_000, **changes})


# --- git's own archives ----------------------------------------------------------------------------

LONG = b"/".join([b"l" * 90] * 4) + b"/" + b"n" * 200
FILES: dict[bytes, tuple[str, bytes]] = {
    b"README.md": ("100644", b"# hello\n"),
    b"empty": ("100644", b""),
    b"run.sh": ("100755", b"#!/bin/sh\n"),
    b"exactly-512": ("100644", b"x" * 512),
    b"exactly-1024": ("100644", b"y" * 1024),
    b"big": ("100644", bytes(range(256)) * 4000),
    b"link": ("120000", b"README.md"),
    b"link-out": ("120000", b"/etc/passwd"),
    b"link-long": ("120000", b"../" * 60 + b"target"),
    b"link-bytes": ("120000", b"caf\xe9"),
    b"a/b/c/d": ("100644", b"deep"),
    b"p" * 155 + b"/" + b"q" * 99: ("100644", b"prefix"),
    LONG: ("100644", b"long"),
    b"caf\xe9/\xff": ("100644", b"latin-1"),
    b"long-\xff/" * 20 + b"\xfe": ("100755", b"long and no text"),
    "ünï/😀".encode(): ("100644", b"text"),
    b"line\nfeed": ("100644", b"lf"),
    b"C:\\windows": ("100644", b"backslash"),
    b"trailing ": ("100644", b"space"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    folder = tmp_path_factory.mktemp("repository")
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_DIR": str(folder),
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def git(*arguments: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(["git", *arguments], input=stdin, env=environment, capture_output=True, check=True).stdout

    git("init", "--quiet", "--bare")
    return git


def commit(git: Callable[..., bytes], files: dict[bytes, tuple[str, bytes]]) -> str:
    git("read-tree", "--empty")
    lines = []
    for path, (mode, content) in files.items():
        sha = content if mode == "160000" else git("hash-object", "-w", "--stdin", stdin=content).strip()
        lines.append(b"%b %b\t%b\0" % (mode.encode(), sha, path))
    git("update-index", "-z", "--index-info", stdin=b"".join(lines))
    tree = git("write-tree").decode().strip()
    return git("commit-tree", "-m", "x", tree).decode().strip()


def archive(git: Callable[..., bytes], files: dict[bytes, tuple[str, bytes]]) -> tuple[str, bytes]:
    sha = commit(git, files)
    return sha, git("archive", "--format=tar.gz", f"--prefix={TOP}/", sha)


def facts(member: Member) -> tuple[str, bytes | None]:
    mode = "120000" if member.kind == "symlink" else "100755" if member.executable else "100644"
    return mode, member.content


@pytest.mark.parametrize("size", [1, 7, 512, 4096, 1_000_000])
def test_every_file_of_gits_archive_comes_out_as_it_went_in(repository: Callable[..., bytes], size: int) -> None:
    _, data = archive(repository, FILES)
    members = read(data, size=size)
    assert {member.path: facts(member) for member in members} == FILES
    assert len(members) == len(FILES)
    for member in members:
        assert member.content is not None
        assert (member.sha, member.size) == (blob_sha(member.content), len(member.content))


def test_members_come_in_gits_order(repository: Callable[..., bytes]) -> None:
    _, data = archive(repository, FILES)
    paths = [member.path for member in read(data)]
    assert paths == sorted(paths)


def test_the_comment_is_the_commit(repository: Callable[..., bytes]) -> None:
    sha, data = archive(repository, {b"a": ("100644", b"")})
    reader = ArchiveReader(chunked(data), limits=LIMITS)
    assert reader.comment is None
    assert len(list(reader)) == 1
    assert reader.comment == sha


def test_what_git_leaves_out_does_not_come(repository: Callable[..., bytes]) -> None:
    files = {
        b".gitattributes": ("100644", b"secret export-ignore\nstamp export-subst\n"),
        b"secret": ("100644", b"s"),
        b"stamp": ("100644", b"$Format:%H$"),
        b"module": ("160000", b"1" * 40),
    }
    sha, data = archive(repository, files)
    members = {member.path: member for member in read(data)}
    assert members.keys() == {b".gitattributes", b"stamp"}
    assert members[b"stamp"].content == sha.encode()
    assert members[b"stamp"].sha == blob_sha(sha.encode()) != blob_sha(b"$Format:%H$")


def test_an_empty_tree_is_an_archive_without_members(repository: Callable[..., bytes]) -> None:
    assert read(archive(repository, {})[1]) == []


def test_a_file_over_the_limit_is_passed_over_but_hashed(repository: Callable[..., bytes]) -> None:
    _, data = archive(repository, FILES)
    members = {member.path: member for member in read(data, limited(max_file_bytes=600))}
    big, small = FILES[b"big"][1], FILES[b"exactly-512"][1]
    assert members[b"big"] == Member(b"big", "file", False, len(big), blob_sha(big), None)
    assert members[b"exactly-1024"].content is None
    assert members[b"exactly-512"].content == small
    assert members.keys() == FILES.keys()


def test_a_file_of_exactly_the_limit_is_kept(repository: Callable[..., bytes]) -> None:
    _, data = archive(repository, {b"a": ("100644", b"12345"), b"b": ("100644", b"123456")})
    assert [member.content for member in read(data, limited(max_file_bytes=5))] == [b"12345", None]


# --- archives made by hand -------------------------------------------------------------------------


def info(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(content)
    return member, content


def tar(*members: tuple[tarfile.TarInfo, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format, encoding="utf-8", errors="surrogateescape") as file:
        file.addfile(info(TOP, kind=tarfile.DIRTYPE)[0])
        for member, content in members:
            file.addfile(member, io.BytesIO(content))
    return target.getvalue()


def header(
    name: bytes, size: bytes, *, kind: bytes = b"0", prefix: bytes = b"", magic: bytes = b"ustar\x0000"
) -> bytes:
    block = bytearray(512)
    block[:100] = name.ljust(100, b"\0")
    block[100:108] = b"0000644\0"
    block[124:136] = size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = magic
    block[345:500] = prefix.ljust(155, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def raw(*blocks: bytes) -> bytes:
    """A tar.gz of blocks as they are, each filled up, with the end mark."""
    return gzip.compress(b"".join(block + b"\0" * (-len(block) % 512) for block in blocks) + bytes(1024))


def octal(size: int) -> bytes:
    return b"%011o\0" % size


TOP_FOLDER = header(b"repo/", octal(0), kind=b"5")
KEPT = [header(b"repo/kept", octal(4)), b"kept"]


def broken(data: bytes, match: str, limits: ArchiveLimits = LIMITS) -> None:
    with pytest.raises(ArchiveBroken, match=match):
        read(data, limits)


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("length", [99, 100, 101, 255, 256, 5000])
def test_long_names_and_targets_are_whole_in_either_format(tar_format: int, length: int) -> None:
    name, target = "n" * length + "\udce9", "t" * length + "\udcff"
    data = tar(info(f"{TOP}/{name}", b"x"), info(f"{TOP}/l", kind=tarfile.SYMTYPE, link=target), tar_format=tar_format)
    members = read(gzip.compress(data))
    assert [(member.path, member.content) for member in members] == [
        (name.encode(errors="surrogateescape"), b"x"),
        (b"l", target.encode(errors="surrogateescape")),
    ]


def test_a_long_name_is_of_one_member_only() -> None:
    data = tar(info(f"{TOP}/" + "n" * 300), info(f"{TOP}/short"), tar_format=tarfile.GNU_FORMAT)
    assert [member.path for member in read(gzip.compress(data))] == [b"n" * 300, b"short"]


def test_the_prefix_field_is_posixs_only() -> None:
    posix = header(b"name", octal(0), prefix=b"repo/folder")
    gnu = header(b"repo/name", octal(0), prefix=b"00000000000", magic=b"ustar  \0")
    assert [member.path for member in read(raw(TOP_FOLDER, posix, gnu))] == [b"folder/name", b"name"]


def test_a_size_may_be_binary_or_come_from_a_pax_header() -> None:
    binary = header(b"repo/binary", b"\x80" + (3).to_bytes(11, "big"))
    pax = header(b"x", octal(9), kind=b"x")
    data = raw(TOP_FOLDER, binary, b"abc", pax, b"9 size=5\n", header(b"repo/pax", octal(0)), b"12345", *KEPT)
    assert [member.content for member in read(data)] == [b"abc", b"12345", b"kept"]


def test_a_global_header_is_for_all_that_follow_and_an_own_one_wins() -> None:
    data = raw(
        header(b"g", octal(17), kind=b"g"), b"17 path=repo/all\n",
        header(b"repo/a", octal(0)),
        header(b"x", octal(17), kind=b"x"), b"17 path=repo/own\n",
        header(b"repo/b", octal(0)),
    )  # fmt: skip
    assert [member.path for member in read(data)] == [b"all", b"own"]


@pytest.mark.parametrize("field", [b" " * 12, b"\0" * 12, b"          0 ", b"0\0garbage   "])
def test_a_size_may_be_spelled_sloppily(field: bytes) -> None:
    assert [member.size for member in read(raw(TOP_FOLDER, header(b"repo/a", field), *KEPT))] == [0, 4]


@pytest.mark.parametrize(
    "field", [b"-0000000001\0", b"\xff" * 12, b"00000000008\0", b"0x000000010\0", b"1_000000000\0", b"+0000000000\0"]
)
def test_a_size_that_is_none_breaks_the_archive(field: bytes) -> None:
    broken(raw(TOP_FOLDER, header(b"repo/a", field), *KEPT), "no number")


@pytest.mark.parametrize(
    "name",
    [
        "../x", "/abs", "repo/../x", "repo/a/../../x", "repo/./x", "repo//x", "repo/..", "repo/", "repo", "./repo/x", "", ".", "..",
        "other/x", "repo/x/", "/repo/x",
    ],
)  # fmt: skip
def test_a_path_that_no_tree_can_hold_is_passed_over_with_its_content(name: str) -> None:
    data = raw(TOP_FOLDER, header(name.encode(), octal(4)), b"evil", *KEPT)
    assert [(member.path, member.content) for member in read(data)] == [(b"kept", b"kept")]


def test_a_nul_in_a_pax_path_is_passed_over() -> None:
    data = raw(
        TOP_FOLDER, header(b"x", octal(17), kind=b"x"), b"17 path=repo/a\0b\n", header(b"repo/a", octal(0)), *KEPT
    )
    assert [member.path for member in read(data)] == [b"kept"]


@pytest.mark.parametrize("first", [b"../x", b"/abs", b"."])
def test_a_hostile_top_folder_lets_nothing_through(first: bytes) -> None:
    assert read(raw(header(first, octal(0)), header(first, octal(0)))) == []


@pytest.mark.parametrize("kind", [b"1", b"3", b"4", b"5", b"6"])
def test_links_devices_folders_and_pipes_are_no_members_and_have_no_content(kind: bytes) -> None:
    # Their size field is not followed by blocks, whatever it says.
    data = raw(TOP_FOLDER, header(b"repo/special", octal(700), kind=kind), *KEPT)
    assert [member.path for member in read(data)] == [b"kept"]


@pytest.mark.parametrize("kind", [b"7", b"S", b"V", b"M", b"D", b"?", b"\xff"])
def test_an_unknown_kind_is_passed_over_with_its_content(kind: bytes) -> None:
    data = raw(TOP_FOLDER, header(b"repo/special", octal(700), kind=kind), b"z" * 700, *KEPT)
    assert [member.path for member in read(data)] == [b"kept"]


def test_the_old_kind_of_a_file_is_a_file() -> None:
    data = raw(TOP_FOLDER, header(b"repo/old", octal(3), kind=b"\0"), b"old", *KEPT)
    assert [member.content for member in read(data)] == [b"old", b"kept"]


def test_a_symlink_is_text_and_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    data = tar(
        info(f"{TOP}/link", kind=tarfile.SYMTYPE, link=str(secret)),
        info(f"{TOP}/link/below", b"below"),
        info(f"{TOP}/hard", kind=tarfile.LNKTYPE, link=f"{TOP}/link"),
    )
    members = read(gzip.compress(data))
    assert [(member.path, member.kind, member.content) for member in members] == [
        (b"link", "symlink", str(secret).encode()),
        (b"link/below", "file", b"below"),
    ]
    assert secret.read_bytes() == b"secret"
    assert members[0].sha == blob_sha(str(secret).encode())


def test_a_symlink_outside_the_top_folder_is_passed_over() -> None:
    data = raw(TOP_FOLDER, header(b"../x", octal(0), kind=b"2"), *KEPT)
    assert [member.path for member in read(data)] == [b"kept"]


def test_two_members_of_one_path_both_come_in_order() -> None:
    data = raw(TOP_FOLDER, header(b"repo/a", octal(1)), b"1", header(b"repo/a", octal(1)), b"2")
    assert [member.content for member in read(data)] == [b"1", b"2"]


# --- caps ------------------------------------------------------------------------------------------


def test_more_members_than_allowed_break_the_archive() -> None:
    data = raw(TOP_FOLDER, *[header(b"repo/a", octal(0))] * 9)
    assert len(read(data, limited(max_members=10))) == 9
    broken(data, "more than 9 members", limited(max_members=9))


def test_members_that_are_passed_over_count_too() -> None:
    broken(raw(TOP_FOLDER, *[header(b"..", octal(0), kind=b"6")] * 10), "more than 9 members", limited(max_members=9))


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("where", ["name", "target"])
def test_a_name_over_the_cap_breaks_the_archive(tar_format: int, where: str) -> None:
    long = f"{TOP}/" + "n" * 200_000
    member = info(long) if where == "name" else info(f"{TOP}/l", kind=tarfile.SYMTYPE, link=long)
    broken(gzip.compress(tar(member, tar_format=tar_format)), "a name of 200013 bytes")


def test_a_name_of_a_megabyte_is_not_even_read() -> None:
    long = info(f"{TOP}/" + "n" * 1_000_000)
    broken(gzip.compress(tar(long, tar_format=tarfile.GNU_FORMAT)), "a header of 10000")


def test_a_name_of_exactly_the_cap_is_kept() -> None:
    data = gzip.compress(tar(info(f"{TOP}/" + "n" * 1000)))
    assert len(read(data, limited(max_name_bytes=1013))) == 1
    broken(data, "a name of 1013 bytes", limited(max_name_bytes=1012))


def test_what_unpacks_to_more_than_allowed_breaks_the_archive() -> None:
    data = raw(TOP_FOLDER, header(b"repo/a", octal(3_000_000)), bytes(3_000_000))
    assert len(read(data)) == 1
    broken(data, "unpacks to more than 3000000 bytes", limited(max_total_bytes=3_000_000))


def test_a_bomb_is_stopped_by_its_ratio() -> None:
    data = raw(TOP_FOLDER, header(b"repo/a", octal(3_000_000)), bytes(3_000_000))
    broken(data, "500 times its size", limited(free_bytes=1_000_000))
    assert len(read(data, limited(free_bytes=1_000_000, max_ratio=2000))) == 1


def test_a_bomb_behind_the_end_mark_is_stopped_too() -> None:
    broken(gzip.compress(bytes(4_000_000)), "more than 3000000 bytes", limited(max_total_bytes=3_000_000))


def zeros(amount: int) -> Iterator[bytes]:
    packer = zlib.compressobj(9, wbits=31)
    yield packer.compress(TOP_FOLDER + header(b"repo/a", octal(amount)))
    for _ in range(amount // 1_000_000):
        yield packer.compress(bytes(1_000_000))
    yield packer.compress(bytes(-amount % 512 + 1024)) + packer.flush()


def peak_of(data: bytes, limits: ArchiveLimits, *, size: int = 1 << 16) -> tuple[list[Member], int]:
    tracemalloc.start()
    try:
        return read(data, limits, size=size), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 16, 1 << 30])
def test_memory_does_not_grow_with_what_is_passed_over(size: int) -> None:
    members, peak = peak_of(b"".join(zeros(100_000_000)), limited(max_total_bytes=200_000_000), size=size)
    assert [(member.size, member.content) for member in members] == [(100_000_000, None)]
    assert peak < 3_000_000


@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_memory_does_not_grow_with_headers_without_end(kind: bytes) -> None:
    records = [b"200000 %05d=" % number + b"v" * 199_986 + b"\n" for number in range(60)]
    blocks = [block for record in records for block in (header(b"x", octal(200_000), kind=kind), record)]
    members, peak = peak_of(raw(TOP_FOLDER, *blocks, *KEPT), LIMITS)
    assert [member.path for member in members] == [b"kept"]
    assert peak < 3_000_000


def test_a_size_that_is_claimed_costs_nothing_but_the_stream() -> None:
    broken(raw(TOP_FOLDER, header(b"repo/a", b"\x80" + b"\xff" * 11), *KEPT), "ends too early")


# --- what is no archive ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4096])
@pytest.mark.parametrize(
    "data", [b"<html>not found</html>", b"\x1f", b"PK\x03\x04" * 2000, b"\x1f\x8b\x08\0" + b"\xff" * 50]
)
def test_what_is_not_gzip_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(ArchiveBroken, match=r"not gzip|cut off"):
        read(data, size=size)


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
def test_nothing_is_no_archive(chunks: list[bytes]) -> None:
    with pytest.raises(ArchiveBroken, match="is empty"):
        list(read_archive(chunks, limits=LIMITS))


def test_a_gzip_of_nothing_ends_too_early() -> None:
    broken(gzip.compress(b""), "ends too early")


def test_a_gzip_of_something_else_is_refused() -> None:
    broken(gzip.compress(b"hello" * 1000), "a header of the archive")


def test_an_archive_within_an_archive_is_just_bytes() -> None:
    inner = raw(TOP_FOLDER, *KEPT)
    data = raw(TOP_FOLDER, header(b"repo/inner.tar.gz", octal(len(inner))), inner)
    assert [member.content for member in read(data)] == [inner]
    broken(gzip.compress(inner), "damaged|too early")


def test_a_damaged_header_breaks_the_archive() -> None:
    block = bytearray(header(b"repo/a", octal(0)))
    block[3] ^= 1
    broken(raw(TOP_FOLDER, bytes(block)), "a header of the archive is damaged")


@pytest.mark.parametrize(
    "record",
    [
        b"path=repo/x\n", b"99 path=repo/x\n", b"8 path=x\n", b"10 path=repo", b" path=x\n", b"-5 path=x\n", b"0 path=x\n", b"7 path\n",
        b"1 1 1 1 ", b"\n" * 9, b"9" * 30 + b" a=b\n", b"10 size=-1\n", b"12 size=0x10\n", b"30 size=" + b"9" * 21 + b"\n", b"8 size=\n",
    ],
)  # fmt: skip
def test_a_damaged_pax_header_breaks_the_archive(record: bytes) -> None:
    data = raw(TOP_FOLDER, header(b"x", octal(len(record)), kind=b"x"), record, header(b"repo/a", octal(0)))
    broken(data, "damaged|no number")


def test_an_archive_without_end_mark_is_cut() -> None:
    broken(gzip.compress(TOP_FOLDER + header(b"repo/a", octal(0))), "ends too early")
    broken(gzip.compress(TOP_FOLDER + header(b"x", octal(700), kind=b"L") + bytes(512)), "ends too early")


def test_what_follows_the_end_mark_breaks_the_archive() -> None:
    whole = TOP_FOLDER + bytes(1024)
    assert read(gzip.compress(whole + bytes(9000))) == []
    broken(gzip.compress(whole + header(b"repo/a", octal(0)) + bytes(1024)), "behind its end mark")
    broken(gzip.compress(whole + bytes(1_000_000) + b"x"), "behind its end mark")


@pytest.mark.parametrize("junk", [b"x", b"\0" * 512, b"junk" * 5000])
@pytest.mark.parametrize("size", [1, 4096, 1_000_000])
def test_what_follows_the_gzip_stream_breaks_the_archive(junk: bytes, size: int) -> None:
    with pytest.raises(ArchiveBroken):
        read(raw(TOP_FOLDER, *KEPT) + junk, size=size)


def test_a_wrong_checksum_at_the_very_end_is_noticed() -> None:
    data = raw(TOP_FOLDER, *KEPT)
    for at in (-8, -1):
        wrong = bytearray(data)
        wrong[at] ^= 1
        broken(bytes(wrong), "damaged")


@pytest.mark.parametrize("size", [1, 5, 100, 4095, 4096, 1_000_000])
def test_several_gzip_streams_in_a_row_are_one_archive(size: int) -> None:
    content = random.Random(1).randbytes(20_000)
    whole = TOP_FOLDER + header(b"repo/a", octal(20_000)) + content + bytes(-20_000 % 512 + 1024)
    for cut in (1, 600, 15_000):
        data = gzip.compress(whole[:cut]) + gzip.compress(b"") + gzip.compress(whole[cut:])
        assert [member.content for member in read(data, size=size)] == [content]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("fields", range(0, 32, 2))
def test_a_gzip_header_with_optional_fields_may_come_in_parts(fields: int, size: int) -> None:
    # RFC 1952: 2 header checksum, 4 extra, 8 name, 16 comment.
    start = b"\x1f\x8b\x08" + bytes([fields]) + bytes(6)
    start += b"\x05\0extra" if fields & 4 else b""
    start += b"name\0" if fields & 8 else b""
    start += b"comment\0" if fields & 16 else b""
    start += (zlib.crc32(start) & 0xFFFF).to_bytes(2, "little") if fields & 2 else b""
    stream = start + raw(TOP_FOLDER, *KEPT)[10:]
    assert [member.path for member in read(stream, size=size)] == [b"kept"]
    noise = random.Random(1).randbytes(20_480)
    before = gzip.compress(
        TOP_FOLDER + header(b"repo/noise", octal(20_480)) + noise + header(b"x", octal(0), kind=b"5")
    )
    assert [member.path for member in read(before + stream, size=size)] == [b"noise", b"kept"]


def test_an_error_of_the_source_passes_through_as_it_is() -> None:
    def failing() -> Iterator[bytes]:
        yield raw(TOP_FOLDER, *KEPT)[:50]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        list(read_archive(failing(), limits=LIMITS))


def test_a_reader_may_stop_early() -> None:
    taken: list[int] = []

    def endless() -> Iterable[bytes]:
        packer = zlib.compressobj(wbits=31)
        yield packer.compress(TOP_FOLDER)
        for number in repeat(1):
            taken.append(number)
            noise = random.Random(len(taken)).randbytes(51_200)
            yield packer.compress(header(b"repo/a", octal(51_200)) + noise) + packer.flush(zlib.Z_FULL_FLUSH)

    members = read_archive(endless(), limits=LIMITS)
    assert next(members).path == b"a"
    assert len(taken) <= 2


# --- any cut, any chunks ---------------------------------------------------------------------------


def sample() -> bytes:
    generator = random.Random(7)
    members = [info(f"{TOP}/{number}", generator.randbytes(number * 37)) for number in range(40)]
    return gzip.compress(tar(*members, info(f"{TOP}/" + "n" * 300, b"long")), mtime=0)


SAMPLE = sample()
WHOLE = list(read_archive([SAMPLE], limits=LIMITS))


@settings(deadline=None)
@given(st.lists(st.integers(0, len(SAMPLE)), max_size=40))
def test_how_the_stream_is_cut_into_chunks_does_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SAMPLE)]
    chunks = [SAMPLE[start:end] for start, end in pairwise(edges)]
    assert list(read_archive(chunks, limits=LIMITS)) == WHOLE
    assert len(WHOLE) == 41


@settings(deadline=None)
@given(st.integers(0, len(SAMPLE) - 1), st.sampled_from([100, 4096, 1 << 20]))
def test_a_stream_that_ends_anywhere_is_broken_and_what_came_was_right(length: int, size: int) -> None:
    came = []
    with pytest.raises(ArchiveBroken):
        came.extend(read_archive(chunked(SAMPLE[:length], size), limits=LIMITS))
    assert came == WHOLE[: len(came)]


@settings(deadline=None)
@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_noticed_or_harmless(at: int, flip: int) -> None:
    data = SAMPLE[:at] + bytes([SAMPLE[at] ^ flip]) + SAMPLE[at + 1 :]
    try:
        members = read(data)
    except ArchiveBroken:
        return
    assert members == WHOLE  # a byte of the gzip header that means nothing


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=512), max_size=6))
def test_any_bytes_end_in_members_or_in_a_broken_archive(blocks: list[bytes]) -> None:
    try:
        members = read(raw(TOP_FOLDER, *blocks))
    except ArchiveBroken:
        return
    assert all(isinstance(member, Member) for member in members)


fields = st.sampled_from([b"repo/a", b"repo/../a", b"", b"repo/", b"repo", b"\xff/\xff", b"repo/a/b"])
sizes = st.sampled_from(
    [octal(0), octal(1), octal(512), octal(513), octal(9**9), b"\0" * 12, b"\x80" + bytes(10) + b"\x09"]
)
kinds = st.sampled_from([bytes([kind]) for kind in b"0123456LKxgS\0"])
bodies = st.sampled_from([b"", b"x" * 513, b"17 path=repo/own\n", b"9 size=5\n", b"16 linkpath=abc\n", b"repo/long\0"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(fields, sizes, kinds, bodies), max_size=8))
def test_any_sequence_of_valid_headers_ends_in_members_or_in_a_broken_archive(
    parts: list[tuple[bytes, bytes, bytes, bytes]],
) -> None:
    blocks = [block for name, size, kind, body in parts for block in (header(name, size, kind=kind), body)]
    try:
        members = read(raw(TOP_FOLDER, *blocks))
    except ArchiveBroken:
        return
    for member in members:
        assert not {b"", b".", b".."} & set(member.path.split(b"/"))
        assert member.content is not None
        assert member.sha == blob_sha(member.content)
