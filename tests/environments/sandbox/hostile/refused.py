"""Programs that reach for something outside. Each function `f` returns what every attempt came to.

`HERE` has keys: secret (a file with a secret), folder (one the trainer's user may write), port (a listening
TCP server), udp, unix, abstract and datagram (the same of other kinds), parent (the trainer's process id), source (a
file of this project), venv (a folder of the interpreter), environment (the name of a secret variable).
"""

# ruff: noqa: E501  (programs read best unbroken)
PRELUDE = """
import ctypes, errno, os, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def attempt(action, *arguments, **named):
    try:
        return ["worked", repr(action(*arguments, **named))[:300]]
    except BaseException as error:
        return ["refused", f"{type(error).__name__}: {error}"[:300]]

def raw(number, *arguments):
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *values)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def save(path, text="x"):
    with open(path, "w") as file:
        file.write(text)

def load(path):
    with open(path, "rb") as file:
        return file.read(4096)
"""

# Processes and programs.
PROCESSES = {
    "fork": "return [attempt(os.fork), attempt(os.forkpty)]",
    "raw fork and vfork": "return [attempt(raw, 57), attempt(raw, 58)]",
    "raw clone": "return [attempt(raw, 56, 17, 0, 0, 0, 0), attempt(raw, 435, bytes(88), 88)]",
    "clone into a new user namespace": "return [attempt(raw, 56, 0x10000000 | 17, 0, 0, 0, 0)]",
    "posix_spawn": "return [attempt(os.posix_spawn, '/bin/sh', ['sh', '-c', 'true'], {})]",
    "subprocess": """
    import subprocess
    return [attempt(subprocess.run, "true", shell=True), attempt(subprocess.run, [sys.executable, "-c", "1"])]""",
    "shell through posix": """
    import posix
    code = posix.system(f"touch {HERE['folder']}/shell; touch /tmp/shell")
    return [["refused", ""] if code else ["worked", "system"]]""",
    "shell through libc": """
    code = libc.system(f"touch {HERE['folder']}/libc".encode())
    return [["refused", ""] if code else ["worked", "system"]]""",
    "multiprocessing": """
    import multiprocessing
    return [attempt(lambda: multiprocessing.get_context(kind).Process(target=print).start())
            for kind in ("fork", "spawn", "forkserver")]""",
    "execve": """
    return [attempt(os.execv, "/bin/sh", ["sh"]), attempt(os.execv, sys.executable, [sys.executable, "-c", "1"]),
            attempt(os.execve, "/proc/self/exe", ["python"], {"LD_PRELOAD": "/tmp/x.so"})]""",
    "execute from memory": """
    return [attempt(os.memfd_create, "x"), attempt(raw, 322, 3, b"", 0, 0, 0x1000)]""",
    "execute a written file": """
    try:
        save("/tmp/x", "#!/bin/sh\\ntouch " + HERE["folder"] + "/executed")
        os.chmod("/tmp/x", 0o755)
    except OSError:
        pass
    return [attempt(os.execv, "/tmp/x", ["/tmp/x"])]""",
    "load a written library": """
    try:
        save("/tmp/x.so", "ELF")
    except OSError:
        pass
    return [attempt(ctypes.CDLL, "/tmp/x.so")]""",
}

# Talking to somebody.
NETWORK = {
    "tcp to loopback": """
    import socket
    return [attempt(socket.create_connection, ("127.0.0.1", HERE["port"]), 0.2)]""",
    "udp to loopback": """
    import socket
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            return s.sendto(b"x", ("127.0.0.1", HERE["udp"]))
    return [attempt(send)]""",
    "unix socket": """
    import socket
    def connect(address):
        socket.socket(socket.AF_UNIX).connect(address)
    return [attempt(connect, HERE["unix"]), attempt(connect, HERE["abstract"])]""",
    "raw, packet, netlink, vsock": """
    import socket
    return [attempt(socket.socket, *kind) for kind in
            ((2, 3, 1), (17, 3, 0), (16, 3, 0), (40, 1, 0), (2, 2, 1), (10, 1, 0), (38, 5, 0))]""",
    "urllib": """
    import urllib.request
    return [attempt(urllib.request.urlopen, f"http://127.0.0.1:{HERE['port']}/", timeout=0.2)]""",
    "raw socket call": "return [attempt(raw, 41, family, 1, 0) for family in (1, 2, 10, 16)]",
    "socketpair of other families": "return [attempt(raw, 53, 2, 1, 0, ctypes.create_string_buffer(8))]",
    "connect a socketpair elsewhere": """
    import socket
    a, b = socket.socketpair()
    return [attempt(a.connect, HERE["abstract"]), attempt(a.bind, "/tmp/s"),
            attempt(a.sendmsg, [b"x"], [], 0, HERE["abstract"])]""",
    "datagrams from a socketpair": """
    import socket
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return [attempt(a.sendto, b"x", HERE["datagram"]), attempt(a.connect, HERE["datagram"]),
            attempt(a.sendto, b"x", HERE["abstract"]), attempt(a.sendmsg, [b"x"], [], 0, HERE["datagram"])]""",
    "dns": "import socket\n    return [attempt(socket.getaddrinfo, 'example.org', 80)]",
    "smtp and ftp": """
    import ftplib
    return [attempt(ftplib.FTP, "127.0.0.1", timeout=0.2)]""",
}

# The host's files.
FILES = {
    "read the secret": "return [attempt(load, HERE['secret'])]",
    "read system files": """
    return [attempt(load, path) for path in
            ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/root/.bashrc", "/bin/sh", "/usr/bin/env")]""",
    "read this project": "return [attempt(load, HERE['source']), attempt(os.listdir, os.path.dirname(HERE['source']))]",
    "list folders": "return [attempt(os.listdir, p) for p in ('/root', '/home', '/etc', '/var', HERE['folder'])]",
    "write to the trainer's folder": "return [attempt(save, HERE['folder'] + '/written')]",
    "write to the interpreter": """
    return [attempt(save, HERE["venv"] + "/x.py"), attempt(open, os.__file__, "a"),
            attempt(save, os.path.dirname(os.__file__) + "/usercustomize.py")]""",
    "write to shared places": "return [attempt(save, p + '/resd-x') for p in ('/var/tmp', '/dev/shm', '/run', '/home', '/root', '/')]",
    "change the interpreter": """
    library = os.__file__
    return [attempt(os.unlink, library), attempt(os.rename, library, library + "x"),
            attempt(os.truncate, library, 0), attempt(os.utime, library), attempt(os.symlink, "/x", library + "y")]""",
    "change modes": "return [attempt(os.chmod, os.path.dirname(os.__file__), 0o777), attempt(os.chown, '/tmp', 0, 0)]",
    "symlink to the secret": """
    try:
        os.symlink(HERE["secret"], "/tmp/link")
    except OSError:
        pass
    return [attempt(load, "/tmp/link")]""",
    "hard link to the secret": "return [attempt(os.link, HERE['secret'], '/tmp/hard'), attempt(load, '/tmp/hard')]",
    "climb with dots": "return [attempt(load, '/tmp/../../../../..' + HERE['secret']), attempt(load, '../..' + HERE['secret'])]",
    "climb with a folder's descriptor": """
    def climb():
        fd = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(9):
            fd = os.open("..", os.O_PATH, dir_fd=fd)
        return os.read(os.open(HERE["secret"][1:], os.O_RDONLY, dir_fd=fd), 99)
    return [attempt(climb)]""",
    "every descriptor as a folder": """
    return [attempt(lambda: os.read(os.open("../" * n + HERE["secret"][1:], os.O_RDONLY, dir_fd=fd), 99))
            for fd in range(256) for n in (0, 4, 8)]""",
    "chroot": "return [attempt(os.chroot, '/tmp'), attempt(raw, 161, b'/')]",
    "mount": """
    return [attempt(raw, 165, b"none", b"/tmp", b"tmpfs", 0, 0), attempt(raw, 166, b"/tmp", 2),
            attempt(raw, 155, b".", b"."), attempt(raw, 428, -100, b"/", 1), attempt(raw, 430, b"tmpfs", 0)]""",
    "devices": """
    return [attempt(os.mknod, "/tmp/d", 0o60666, os.makedev(254, 0)), attempt(load, "/dev/vda"),
            attempt(load, "/dev/mem"), attempt(load, "/dev/kmsg"), attempt(save, "/dev/tty")]""",
    "open by handle": "return [attempt(raw, 304, -100, bytes(16), 0), attempt(raw, 303, -100, b'/', bytes(16), bytes(8), 0)]",
    "import the project": """
    sys.path.insert(0, HERE["source"].split("/resd/")[0])
    import importlib
    return [attempt(importlib.import_module, "resd.records")]""",
    "unshare": "return [attempt(raw, 272, flag) for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000)]",
}

# Other processes and the kernel.
OTHERS = {
    "proc of others": """
    pids = [HERE["parent"], os.getppid(), 1, 2]
    return [attempt(load, f"/proc/{pid}/{name}") for pid in pids for name in ("environ", "mem", "maps", "cmdline")
            if pid not in (os.getpid(), 0)]""",
    "proc listing": "return [attempt(os.listdir, p) for p in ('/proc', f\"/proc/{HERE['parent']}/fd\", '/sys', '/proc/1/root')]",
    "own memory through proc": "return [attempt(open, '/proc/self/mem', 'r+b'), attempt(load, '/proc/self/environ')]",
    "environment": """
    if HERE["environment"] in os.environ or os.getenv(HERE["environment"]):
        return [["worked", "environment"]]
    block = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    names = []
    while block and block[len(names)]:
        names.append(block[len(names)].decode())
    return [["worked", n] for n in names if not n.startswith("LC_CTYPE=")] or [["refused", ""]]""",
    "signal others": """
    pids = [HERE["parent"], -1, 0, -HERE["parent"], os.getppid() or 999999, os.getpid() + 1]
    return [attempt(os.kill, pid, 9) for pid in pids] + [attempt(os.killpg, HERE["parent"], 9)]""",
    "signal threads of others": "return [attempt(raw, 234, HERE['parent'], HERE['parent'], 9), attempt(raw, 200, HERE['parent'], 9)]",
    "pidfd": """
    return [attempt(os.pidfd_open, HERE["parent"]), attempt(raw, 434, os.getpid(), 0), attempt(raw, 438, 3, 0, 0),
            attempt(raw, 424, 3, 9, 0, 0)]""",
    "ptrace": "return [attempt(raw, 101, request, HERE['parent'], 0, 0) for request in (0, 16, 0x4206)]",
    "process_vm": "return [attempt(raw, number, HERE['parent'], bytes(16), 1, bytes(16), 1, 0) for number in (310, 311)]",
    "limits of others": """
    import resource
    return [attempt(resource.prlimit, HERE["parent"], resource.RLIMIT_CPU, (1, 1)),
            attempt(resource.setrlimit, resource.RLIMIT_CPU, (999, 999)),
            attempt(resource.setrlimit, resource.RLIMIT_AS, (-1, -1)), attempt(raw, 160, 0, bytes(16))]""",
    "become root": """
    return [attempt(os.setuid, 0), attempt(os.setresuid, 0, 0, 0), attempt(os.setgid, 0), attempt(os.setgroups, [0]),
            attempt(raw, 126, bytes(8), bytes(24))]""",
    "keyrings": "return [attempt(raw, 250, 0, -3, 0, 0, 0), attempt(raw, 248, b'user', b'n', b'v', 1, -3), attempt(raw, 249, b'user', b'n', 0, 0)]",
    "bpf and perf": "return [attempt(raw, 321, 0, bytes(72), 72), attempt(raw, 298, bytes(112), 0, -1, -1, 0)]",
    "io_uring": "return [attempt(raw, 425, 8, bytes(120)), attempt(raw, 426, 3, 1, 0, 0, 0, 0), attempt(raw, 427, 3, 0, 0, 0)]",
    "userfaultfd": "return [attempt(raw, 323, 1), attempt(raw, 323, 0)]",
    "inotify and fanotify": "return [attempt(raw, 253), attempt(raw, 294, 0), attempt(raw, 300, 0, 0)]",
    "timers": "return [attempt(raw, 222, 0, 0, bytes(8)), attempt(raw, 283, 1, 0)]",
    "kernel modules and kexec": "return [attempt(raw, n, 0, 0, 0, 0) for n in (175, 176, 246, 313, 320, 169, 167, 163)]",
    "clock and host name": "import time\n    return [attempt(time.clock_settime, 0, 0.0), attempt(raw, 170, b'x', 1), attempt(raw, 305, 0, bytes(208))]",
    "shared memory and queues": """
    return [attempt(raw, 29, 0, 4096, 0o1666), attempt(raw, 68, 0, 0o1666), attempt(raw, 64, 0, 1, 0o1666),
            attempt(raw, 240, b"q", 0o102, 0o666, 0)]""",
    "scheduling": "return [attempt(os.sched_setaffinity, 0, {0}), attempt(os.setpriority, 0, 0, -5), attempt(os.nice, -5), attempt(raw, 149, 0, 4096)]",
    "undo the filter": "return [attempt(raw, 157, option, 0, 0, 0, 0) for option in (21, 22, 4, 36, 38, 1, 23, 55)] + [attempt(raw, 317, 0, 0, 0), attempt(raw, 446, 3, 0)]",
    "namespaces of others": "return [attempt(raw, 308, 3, 0)]",
    "terminal input": "import fcntl\n    return [attempt(fcntl.ioctl, fd, 0x5412, b'x') for fd in (0, 1, 2)]",
    "pipes made huge": "import fcntl\n    return [attempt(fcntl.fcntl, 1, 1031, 1 << 20)]",
    "shared memory module": "from multiprocessing import shared_memory\n    return [attempt(shared_memory.SharedMemory, create=True, size=1 << 20)]",
}

ATTACKS = {**PROCESSES, **NETWORK, **FILES, **OTHERS}


def program(body: str) -> str:
    return f"{PRELUDE}\ndef f(HERE):\n    {body.strip()}\n"
