"""The program between agentkit and a foreign program: it sets limits, watches, and cleans up.

Runs as a process of its own, `python -I -S _jail.py`, with nothing but the standard library.
Standard input brings a line of JSON (see `_process.py`) and stays open: when it is closed,
everything is over. Standard output belongs to the foreign program, standard error gets one
line of JSON about its end.

Isolated, on Linux, the foreign program runs in namespaces of its own: a file system with the
system's programs, read-only, and one folder to work in; a list of processes with only its
own; no network. They end together with the first process in them, which is this one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MS_RDONLY = 1
MNT_DETACH = 2
MOUNT_SETATTR = 442  # the same number on every architecture
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "armv7l": 218, "ppc64le": 203}
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
NOBODY = 65534
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
NETWORK_FILES = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/ssl", "/etc/pki")
DEVICES = ("null", "zero", "random", "urandom")

Job = dict[str, Any]

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the job, run it, and report how it ended."""
    job = json.loads(sys.stdin.buffer.readline())
    try:
        if not job["isolated"]:
            job["limits"]["NPROC"] += tasks_of(os.getuid())
        status = isolated(job) if job["isolated"] else watched(job)
    except OSError as error:
        status = failed(error)
    os._exit(status)


def failed(error: OSError) -> int:
    """Report that the system refused something."""
    return report(error=f"{error.filename or 'isolation'}: {error.strerror}")


def report(**ending: Any) -> int:
    """Write how it ended, as one line of JSON."""
    os.write(2, json.dumps(ending).encode() + b"\n")
    return 0


# Isolation


def isolated(job: Job) -> int:
    """Run the job in namespaces of its own, and wait for the first process in them."""
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
    flags |= 0 if job["network"] else CLONE_NEWNET
    # Root needs no namespace of users, and can become somebody else.
    job["root"] = uid == 0 and _libc.unshare(flags) == 0
    if job["root"]:
        status = os.stat(job["folder"]) if job["folder"] else None
        uid, gid = (status.st_uid, status.st_gid) if status else (NOBODY, NOBODY)
        job["limits"]["NPROC"] += tasks_of(uid)
    else:  # the same user there as here, so that files keep their owner
        check(_libc.unshare(flags | CLONE_NEWUSER), "unshare")
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{uid} {uid} 1")
        write("/proc/self/gid_map", f"{gid} {gid} 1")
    job["uid"], job["gid"] = uid, gid
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return 0
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        furnish(job)
        status_code = watched(job)
    except OSError as error:
        status_code = failed(error)
    os._exit(status_code)


def furnish(job: Job) -> None:
    """Make a new root of what the job may see, and forget the old one."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    new = "/tmp"  # any folder that is there; it is covered only in here
    binds = [*SYSTEM, *SYSTEM_FILES, *(NETWORK_FILES if job["network"] else ()), *job["read"]]
    binds = [one for one in binds if not any(one.startswith(f"{other}/") for other in binds)]
    held = [(path, os.open(path, os.O_PATH)) for path in binds if os.path.exists(path)]
    folder = None if job["folder"] is None else os.open(job["folder"], os.O_PATH)
    devices = [(f"/dev/{name}", os.open(f"/dev/{name}", os.O_PATH)) for name in DEVICES]
    mount("tmpfs", new, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in ("/tmp",) if folder is not None else ("/tmp", "/box"):
        os.makedirs(new + path)
        options = f"size={job['disk']},mode=1777"
        mount("tmpfs", new + path, "tmpfs", MS_NOSUID | MS_NODEV, options)
    if folder is not None:
        bind(folder, f"{new}/box", read_only=not job["write"])
    for path, descriptor in held:
        if path in SYSTEM and os.path.islink(path):  # /bin is usr/bin
            os.makedirs(os.path.dirname(new + path), exist_ok=True)
            os.symlink(os.readlink(path), new + path)
        else:
            bind(descriptor, new + path, read_only=True)
    for path, descriptor in devices:
        bind(descriptor, new + path, devices=True)
    os.symlink("/proc/self/fd", f"{new}/dev/fd")
    os.symlink("/tmp", f"{new}/dev/shm")
    os.makedirs(f"{new}/proc")
    mount("proc", f"{new}/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    write_file(f"{new}/etc/passwd", f"user:x:{job['uid']}:{job['gid']}::/tmp:/bin/sh\n")
    for path, text in job["files"].items():
        write_file(new + path, text)
    old = os.open("/", os.O_RDONLY)
    os.chdir(new)
    number = PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "unknown architecture", "pivot_root")
    check(_libc.syscall(number, b".", b"."), "pivot_root")
    os.fchdir(old)
    check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    set_attributes("/", MS_RDONLY, recursive=False)
    for _, descriptor in [*held, *devices]:
        os.close(descriptor)
    os.close(old)
    with contextlib.suppress(OSError):
        check(_libc.sethostname(b"sandbox", 7), "sethostname")


def bind(descriptor: int, target: str, *, read_only: bool = False, devices: bool = False) -> None:
    """Show what a descriptor is open for at another place."""
    source = f"/proc/self/fd/{descriptor}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        write_file(target, "")
    mount(source, target, None, MS_BIND | MS_REC)
    set_attributes(
        target, MS_NOSUID | (MS_RDONLY if read_only else 0) | (0 if devices else MS_NODEV)
    )


def set_attributes(target: str, attributes: int, *, recursive: bool = True) -> None:
    """Set attributes of a mount, and of those below it; NOSUID and the like are as for mount."""
    values = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    size = ctypes.sizeof(values)
    done = _libc.syscall(
        MOUNT_SETATTR, AT_FDCWD, target.encode(), flags, ctypes.byref(values), size
    )
    check(done, "mount_setattr")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, or something that is there already, at another place."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    check(_libc.mount(*texts, ctypes.c_ulong(flags), data.encode()), "mount")


def check(result: int, name: str) -> None:
    """Raise the error of a call of the C library, if it failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def write(path: str, text: str) -> None:
    """Write to a file of the kernel's."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def write_file(path: str, text: str) -> None:
    """Write a file, with the folders above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# The foreign program


def watched(job: Job) -> int:
    """Run the program under its limits, and end all of its processes with it."""
    if job["command"] is None:
        return report(status=0)
    if sys.platform == "linux":
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, awake)
    signal.set_wakeup_fd(woken)
    ends = time.monotonic() + job["seconds"]
    pid = os.fork()
    if pid == 0:
        execute(job)
    if job["isolated"]:
        _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody in here may trace its own guard
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # for root, so that no number of processes outruns it
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    reason: str | None = None
    while (status := reaped(pid)) is None and reason is None:
        ready = select.select([0, wake], [], [], 0.02 if job["isolated"] else 0.1)[0]
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:  # closed, because nothing else comes
            reason = "cancelled"
        elif time.monotonic() > ends:
            reason = "time"
        else:
            reason = excess(job)
    kill_all(pid, isolated=job["isolated"])
    return report(**({"stopped": reason} if status is None else {"status": status}))


def awake(number: int, frame: object) -> None:
    """Let the death of a child interrupt the wait."""


def execute(job: Job) -> NoReturn:
    """Become the program."""
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if not job["isolated"]:
            os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(1, 2)
        for name, value in job["limits"].items():
            number = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(number)[1]
            soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
            with contextlib.suppress(*(() if sys.platform == "linux" else (ValueError, OSError))):
                resource.setrlimit(number, (soft, soft))
        os.chdir("/box" if job["isolated"] else job["folder"] or "/")
        if job["isolated"]:
            drop(job)
        os.execve(job["command"][0], job["command"], job["environment"])
    except OSError as error:
        os.write(1, f"The program cannot be started: {error.strerror}.\n".encode())
    os._exit(127)


def drop(job: Job) -> None:
    """Give up every privilege, for good."""
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if job["root"]:
        os.setgroups([])
        os.setresgid(job["gid"], job["gid"], job["gid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def reaped(pid: int) -> int | None:
    """Bury dead children; return the program's status if it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (dead := os.waitpid(-1, os.WNOHANG))[0]:
            if dead[0] == pid:
                status = dead[1]
    return status


def excess(job: Job) -> str | None:
    """Name the limit that the processes exceed together, if one."""
    pages = descendants().values()
    if len(pages) > job["processes"]:
        return "processes"
    if sum(pages) * resource.getpagesize() > job["memory"]:
        return "memory"
    return None


def processes() -> dict[int, list[bytes]]:
    """Return the fields of /proc/PID/stat behind the name, for every process."""
    found: dict[int, list[bytes]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                found[int(name)] = file.read().rpartition(b")")[2].split()
    return found


def tasks_of(uid: int) -> int:
    """Return how many threads a user has, because a limit of processes counts them all."""
    count = 0
    for pid, fields in processes().items():
        with contextlib.suppress(OSError):
            count += int(fields[17]) if os.stat(f"/proc/{pid}").st_uid == uid else 0
    return count


def descendants() -> dict[int, int]:
    """Return all processes below this one, with the pages that each has in memory."""
    known = processes()
    below = {os.getpid()}
    more = below
    while more:
        more = {pid for pid, fields in known.items() if int(fields[1]) in below} - below
        below |= more
    return {pid: int(known[pid][21]) for pid in below - {os.getpid()}}


def kill_all(pid: int, *, isolated: bool) -> None:
    """End everything that the program started, wherever it went."""
    if isolated:  # as the first process: its end is the end of all, too
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
        return
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    for _ in range(100):  # what forks while it is killed is met in the next round
        left = descendants()
        if not left:
            return
        for one in left:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        reaped(pid)
        time.sleep(0.001)


if __name__ == "__main__":
    main()
