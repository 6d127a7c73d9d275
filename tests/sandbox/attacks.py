"""Programs that try to pass without solving `f(x) == x + 41`, or to harm what is around them.

Each row: name, program, the outcomes that are right. `CANARY` stands for a file of the host.
"""

WRONG, TIMEOUT, MEMORY, OUTPUT = "wrong", "timeout", "memory", "output-limit"
ANY_LOSS = (WRONG, TIMEOUT, MEMORY, OUTPUT)
_NEVER = "\ndef f(x): return None\n"

ATTACKS = [
    # --- leaving early, or in an odd way ---
    ("sys_exit", "import sys; sys.exit(0)", (WRONG,)),
    ("os_exit", "import os; os._exit(0)", (WRONG,)),
    ("exit_in_the_call", "import os\ndef f(x): os._exit(0)", (WRONG,)),
    ("raise_systemexit_in_call", "def f(x): raise SystemExit(0)", (WRONG,)),
    ("kill_itself", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)" + _NEVER, ANY_LOSS),
    ("crash", "import ctypes; ctypes.string_at(0)", (WRONG,)),
    ("abort", "import os; os.abort()", (WRONG,)),
    ("atexit_exit", "import atexit, os; atexit.register(os._exit, 0)" + _NEVER, (WRONG,)),
    ("exec_true", "import os\nos.execv('/bin/true', ['true'])" + _NEVER, (WRONG,)),
    # --- a verdict of its own ---
    ("print_a_verdict", "print('{\"values\": [42, 43]}', flush=True)" + _NEVER, (WRONG,)),
    (
        "write_on_all_fds",
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'passed')\n"
        "    except OSError: pass\nos._exit(0)",
        (WRONG,),
    ),
    (
        "forge_a_reply",
        "import os, json\nfor fd in range(3, 64):\n    try: os.write(fd, json.dumps({'values':"
        " [42, 43], 'token': 'x'}).encode())\n    except OSError: pass\nos._exit(0)",
        (WRONG,),
    ),
    (
        "steal_the_token_and_send_nothing_of_use",
        "import sys, json, os\nframe = sys._getframe()\n"
        "while frame and 'job' not in frame.f_locals: frame = frame.f_back\n"
        "reply = {'values': [0, 0], 'token': frame.f_locals['job']['token'], 'outcome': 'passed'}\n"
        "for fd in range(3, 64):\n    try: os.write(fd, json.dumps(reply).encode())\n"
        "    except OSError: pass\nos._exit(0)",
        (WRONG,),
    ),
    (
        "search_memory_for_the_expected_value",
        "import gc, sys\nwanted = ['10', '42']\nseen = []\nframe = sys._getframe().f_back\n"
        "while frame:\n    seen.append(repr(frame.f_locals)); frame = frame.f_back\n"
        "seen += [repr(o)[:9999] for o in gc.get_objects() if type(o) in (list, tuple)][:3000]\n"
        "found = any(''.join(wanted) in text for text in seen)\n"
        "def f(x): return x + 41 if found else None",
        (WRONG,),
    ),
    # --- objects and built-ins that lie ---
    (
        "always_equal",
        "class Yes:\n    def __eq__(self, other): return True\n"
        "    def __bool__(self): return True\n"
        "def f(x): return Yes()",
        (WRONG,),
    ),
    ("lying_int", "class I(int):\n    __eq__ = lambda s, o: True\ndef f(x): return I(0)", (WRONG,)),
    (
        "lying_str_subclass",
        "class S(str):\n    __eq__ = lambda s, o: True\n    __hash__ = str.__hash__\n"
        "def f(x): return S('42')",
        (WRONG,),
    ),
    (
        "always_equal_metaclass",
        "class M(type):\n    def __eq__(cls, other): return True\nclass A(metaclass=M): pass\n"
        "def f(x): return A",
        (WRONG,),
    ),
    (
        "patched_builtins",
        "import builtins\nbuiltins.AssertionError = None\nbuiltins.bool = lambda x: True\n"
        "builtins.isinstance = lambda *a: True\nbuiltins.eval = lambda *a: 42" + _NEVER,
        (WRONG,),
    ),
    ("patched_print", "import builtins; builtins.print = lambda *a, **k: None" + _NEVER, (WRONG,)),
    (
        "patched_json_and_wire",
        "import json, sys\njson.dumps = lambda *a, **k: '{\"values\": [true, true]}'\n"
        "sys.modules['wire'].encode = lambda v: {'always': 'equal'}" + _NEVER,
        (WRONG,),
    ),
    (
        "fake_pytest",
        "import sys, types\nsys.modules['pytest'] = types.ModuleType('pytest')\n"
        "sys.modules['unittest'] = None" + _NEVER,
        (WRONG,),
    ),
    (
        "import_hook",
        "import sys\nclass Hook:\n    def find_spec(self, *a): raise SystemExit(0)\n"
        "sys.meta_path.insert(0, Hook())" + _NEVER,
        (WRONG,),
    ),
    (
        "sitecustomize",
        "import os\nfor d in ('/tmp', '/inside', os.path.dirname(os.__file__)):\n    try:\n"
        "        open(d + '/sitecustomize.py', 'w').write('import os; os._exit(0)')\n"
        "    except OSError: pass" + _NEVER,
        (WRONG,),
    ),
    (
        "trace_function",
        "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)" + _NEVER,
        (WRONG,),
    ),
    ("tagged_lie", "def f(x): return {'i': '0x2a'}", (WRONG,)),
    ("nan", "def f(x): return float('nan')", (WRONG,)),
    # --- using up the machine ---
    ("endless_loop", "while True: pass", (TIMEOUT,)),
    ("sleep", "import time; time.sleep(60)", (TIMEOUT,)),
    (
        "ignore_all_signals",
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        (TIMEOUT,),
    ),
    (
        "fork_bomb",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        (TIMEOUT, MEMORY, WRONG),
    ),
    (
        "threads",
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,))"
        ".start()",
        (WRONG, MEMORY, TIMEOUT),
    ),
    ("memory_at_once", "x = bytearray(8 * 2**30)", (MEMORY,)),
    ("memory_in_steps", "x = []\nwhile True: x.append(bytearray(2**20))", (MEMORY,)),
    ("memory_as_result", "def f(x): return 'a' * 2**34", (MEMORY,)),
    (
        "disk_fill",
        "n = 0\nwhile True:\n    with open(f'/tmp/{n}', 'wb') as file: file.write(bytes(2**20))\n"
        "    n += 1",
        (WRONG,),
    ),
    (
        "many_files",
        "n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1",
        (WRONG,),
    ),
    ("large_sparse_file", "open('/tmp/x', 'w').truncate(2**40)", (WRONG,)),
    ("open_all_files", "x = []\nwhile True: x.append(open('/dev/null'))", (WRONG,)),
    ("memfd", "import os\nos.memfd_create('x')", (WRONG,)),
    ("gigantic_output", "while True: print('x' * 65536)", (OUTPUT,)),
    (
        "gigantic_error_output",
        "import os\nwhile True: os.write(2, b'x' * 65536)",
        (OUTPUT,),
    ),
    ("gigantic_result", "def f(x): return 'a' * 5_000_000", (OUTPUT,)),
    ("huge_int", "def f(x): return 1 << 2_000_000", (WRONG, OUTPUT)),
    ("huge_int_text", "def f(x): return str(10 ** 10 ** 5)", (WRONG,)),
    (
        "colliding_hashes",
        "def f(x): return {i * (2**61 - 1) for i in range(500)}",
        (WRONG,),
    ),
    ("recursion", "def f(x): return f(x)", (WRONG,)),
    ("deep_recursion", "import sys; sys.setrecursionlimit(10**9)\ndef f(x): return f(x)", ANY_LOSS),
    (
        "deep_result",
        "def f(x):\n    r = []\n    for _ in range(900): r = [r]\n    return r",
        (WRONG,),
    ),
    (
        "deep_json",
        "import sys; sys.setrecursionlimit(10**6)\ndef f(x):\n    r = []\n"
        "    for _ in range(20000): r = [r]\n    return r",
        ANY_LOSS,
    ),
    ("endless_iterator", "import itertools\ndef f(x): return itertools.count()", (WRONG,)),
    ("endless_generator", "def f(x):\n    while True: yield x", ANY_LOSS),
    # --- children that stay ---
    (
        "sleeping_child",
        "import os, time\nif os.fork() == 0: time.sleep(60)" + _NEVER,
        (WRONG,),
    ),
    (
        "daemon_double_fork",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        while True: time.sleep(1)\n    os._exit(0)" + _NEVER,
        (WRONG,),
    ),
    (
        "child_that_goes_on_printing",
        "import os\nif os.fork() == 0:\n    while True: os.write(1, b'zombie' * 1000)" + _NEVER,
        (WRONG, OUTPUT),
    ),
    (
        "child_that_answers_late",
        "import os, time\nif os.fork() == 0:\n    time.sleep(0.2)\n    for fd in range(64):\n"
        "        try: os.write(fd, b'{\"values\": [42, 1042]}')\n        except OSError: pass\n"
        "    os._exit(0)\nos._exit(0)",
        (WRONG,),
    ),
    # --- signals, tracing, descriptors ---
    (
        "signal_the_parent",
        "import os, signal\nfor pid in (os.getppid(), 0, -1, 2, 3):\n"
        "    try:\n        if pid: os.kill(pid, signal.SIGKILL)\n    except OSError: pass" + _NEVER,
        ANY_LOSS,
    ),
    (
        "close_all_descriptors",
        "import os\nos.closerange(0, 256)" + _NEVER,
        (WRONG,),
    ),
    (
        "ptrace",
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert [libc.ptrace(16, pid, 0, 0) for pid in range(1, 20)] == [0] * 19",
        (WRONG,),
    ),
]
"""Programs that end in a loss by themselves."""

MUST_FAIL = [
    # Each tries one forbidden thing, and is right (f is) only where that worked.
    ("tcp", "import socket; socket.create_connection(('1.1.1.1', 80), timeout=0.5)"),
    ("udp", "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))"),
    ("localhost", "import socket; socket.create_connection(('127.0.0.1', PORT), timeout=0.5)"),
    ("listen", "import socket; s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen()"),
    ("unix_socket", "import socket; socket.socket(socket.AF_UNIX).bind('\\0abstract')"),
    ("netlink", "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    ("read_host_file", "open('CANARY').read()"),
    ("list_host_folder", "import os; os.listdir(os.path.dirname('CANARY'))"),
    ("read_passwd", "open('/etc/passwd').read()"),
    ("read_keys", "import os; os.listdir(os.path.expanduser('~root/.ssh'))"),
    ("read_test_file", "open('TESTFILE').read()"),
    ("read_environment", "import os; os.environ['PELLUCID_CANARY']"),
    ("read_proc_environment", "open('/proc/1/environ').read()"),
    ("read_proc_memory", "open('/proc/self/mem', 'rb').read(1)"),
    ("read_sys", "import os; os.listdir('/sys')"),
    ("symlink", "import os; os.symlink('CANARY', '/tmp/link'); open('/tmp/link').read()"),
    ("hard_link", "import os; os.link('/inside/zygote.py', '/tmp/zygote.py')"),
    ("dot_dot", "open('/inside/../../../../../CANARY').read()"),
    ("change_harness", "open('/inside/zygote.py', 'a').write('#')"),
    ("change_library", "import os; open(os.__file__, 'a').write('#')"),
    ("delete_library", "import os; os.remove(os.__file__)"),
    ("chmod_harness", "import os; os.chmod('/inside/zygote.py', 0o777)"),
    ("write_root", "open('/new', 'w')"),
    ("write_dev_shm", "open('/dev/shm/x', 'w')"),
    ("mount", "LIBC('mount', b'none', b'/tmp', b'tmpfs', 0, None)"),
    ("remount", "LIBC('mount', b'none', b'/', None, 32 | 4096, None)"),
    ("unmount", "LIBC('umount2', b'/tmp', 2)"),
    ("chroot", "import os; os.chroot('/tmp')"),
    ("user_namespace", "LIBC('unshare', 0x10000000)"),
    ("clone_namespace", "LIBC('syscall', 56, 0x10000000 | 17, 0, 0, 0, 0)"),
    ("setuid", "import os; os.setuid(0)"),
    ("raise_limits", "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))"),
    ("raise_process_limit", "import resource as r; r.setrlimit(r.RLIMIT_NPROC, (9999, 9999))"),
    (
        "make_device",
        "import os; os.mknod('/tmp/d', 0o60600, os.makedev(254, 0))",
    ),
    ("set_clock", "import time; time.clock_settime(time.CLOCK_REALTIME, 0)"),
    ("priority", "import os; os.nice(-10)"),
    ("host_name", "LIBC('sethostname', b'x', 1)"),
    ("kill_the_first_zygote", "import os; os.kill(os.getppid() or 2, 9)"),
    ("shared_memory", "LIBC('shmget', 1, 4096, 0o1600)"),
    ("keyring", "LIBC('syscall', 250, 0, -4, 1)"),
    ("io_uring", "LIBC('syscall', 425, 8, bytes(120))"),
    ("bpf", "LIBC('syscall', 321, 0, bytes(120), 120)"),
    ("x32_calls", "LIBC('syscall', 0x40000000 + 41, 2, 1, 0)"),
    ("shell", "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'], check=True)"),
    ("installed_packages", "import torch"),
    ("pellucid_itself", "import pellucid"),
    ("terminal", "import os; os.open('/dev/tty', os.O_RDWR)"),
]
LIBC = """
import ctypes
def LIBC(name, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    if getattr(libc, name)(*args) == -1:
        raise OSError(ctypes.get_errno(), name)
"""
