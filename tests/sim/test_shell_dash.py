"""The simulated shell answers as the real dash: same output, same status, for scripts of built-ins."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest

from vcrecon.sim.machine import Machine
from vcrecon.sim.shell import run_script
from vcrecon.sim.streams import BytesReader, BytesWriter

DASH = shutil.which("dash")

SCRIPTS = [
    # words and quoting
    "echo a  b   c",
    "echo 'a  b' \"c  d\" e\\ f",
    'echo "a\'b" \'c"d\' "e\\"f" "g\\nh" \'i\\\\nj\'',
    'x=1; echo "$x" \'$x\' \\$x "\\$x" "${x}y"',
    "echo a\\\nb",
    'echo "one\ntwo"',
    "echo ''; echo \"\"; echo '' ''",
    "echo $ '$' \"$\"",
    "echo a#b # a comment\necho c",
    "# only a comment",
    "",
    'echo "`echo a b`" `echo \\`echo deep\\``',
    # parameters
    'x="a b  c"; echo $x; echo "$x"',
    "echo ${x:-default} ${x-unset} ${x:+set} ${x+set}.",
    "x=; echo ${x:-empty} ${x-kept}. ${x:+no}.",
    "echo ${x:=assigned} $x",
    'x=v; echo ${x:+"quoted  alternative"} ${x:+plain  alternative}',
    "x=/a/b/c.tar.gz; echo ${x##*/} ${x#*/} ${x%.*} ${x%%.*} ${#x}",
    'x="a*b"; echo "${x%"*b"}" "${x%\\**}"',
    "echo ${nope:?is needed}; echo not reached",
    "set -u; echo before; echo $nope; echo not reached",
    'set -- a \'b c\' d; echo $# $1 $2 $3; for i in "$@"; do echo "<$i>"; done',
    'set -- a \'b c\'; for i in $@; do echo "<$i>"; done; for i in "$*"; do echo "<$i>"; done',
    'set --; for i in "$@"; do echo never; done; echo $#; echo "${1-none}"',
    "set -- a b c; shift; echo $@; shift 2; echo $#",
    'set -- x y; echo "pre $@ post"',
    'x=a:b::c; IFS=:; for i in $x; do echo "<$i>"; done',
    'x=\' a  b \'; for i in $x; do echo "<$i>"; done; for i in x$x; do echo "<$i>"; done',
    "x='  '; for i in $x; do echo never; done; for i in \"$x\" ''; do echo \"<$i>\"; done",
    "x=$(printf 'a\\n\\nb\\n\\n'); echo \"$x|\"",
    "echo $(echo $(echo $(echo deep)))",
    'echo "$(echo "inner quotes" \'and ) paren\')"',
    "x=$(exit 3); echo $?; x=$(exit 4) y=5; echo $? $y",
    "a=1 b=2; a=3 eval 'echo $a'; echo $a",
    "x=outer; f() { local x=inner; echo $x; }; f; echo $x",
    # arithmetic
    "echo $((1 + 2 * 3)) $(( (1+2)*3 )) $((7/2)) $((-7/2)) $((-7%3)) $((1<<4)) $((5>3&&2<1))",
    "x=5; echo $((x+1)) $(($x*2)) $((x+=3)) $x $((y=4)) $y",
    "echo $((0x1f)) $((010)) $((!0)) $((~0)) $((1?2:3)) $((3|4^1&7))",
    "i=0; while [ $i -lt 3 ]; do i=$((i+1)); echo $i; done",
    # lists and status
    "true && echo yes || echo no; false && echo yes || echo no",
    "! true; echo $?; ! false; echo $?",
    "false; echo $?; true; echo $?",
    "(exit 7); echo $?; (echo sub; exit 2) || echo $?",
    "{ echo a; echo b; }; { false; }; echo $?",
    "x=1; (x=2; echo $x); echo $x",
    "exit 5; echo never",
    "echo a; exit",
    "false; exit",
    "nosuchcommand 2>/dev/null; echo $?",
    "nosuchcommand",
    # pipelines
    'echo a b c | while read x y; do echo "$y $x"; done',
    'echo x | read y; echo "[$y]"',
    "false | true; echo $?; true | false; echo $?",
    "printf '1\\n2\\n3\\n' | { read a; read b; echo $b $a; while read c; do echo rest $c; done; }",
    "x=1; echo | x=2; echo $x",
    "while :; do echo y; done | { read l; echo $l; }",
    # compound commands
    "if true; then echo a; elif true; then echo b; else echo c; fi",
    "if false; then echo a; elif false; then echo b; else echo c; fi; if false; then :; fi; echo $?",
    "for i in 1 2 3; do [ $i = 2 ] && continue; echo $i; done",
    "for i in 1 2 3; do for j in a b; do [ $j = b ] && continue 2; [ $i = 3 ] && break 2; echo $j\ndone; done",
    'until [ "$x" = aaa ]; do x=a$x; done; echo $x; while false; do :; done; echo $?',
    "for i in; do echo never; done; echo $?",
    "case abc in a*) echo prefix;; *) echo other;; esac",
    "case 'a b' in 'a b') echo q;; esac; case x in a|x|z) echo alt;; esac; case n in y) ;; esac; echo $?",
    "case '*' in '*') echo star;; esac; case b in [a-c]) echo in;; esac; case d in [!a-c]) echo not;; esac",
    "x='a*'; case abc in \"$x\") echo quoted;; $x) echo pattern;; esac",
    "case a in (a) echo paren ;; esac",
    "f() { echo $1 $#; return 3; echo never; }; f x y; echo $?",
    "f() { for i; do echo \"<$i>\"; done; }; f a 'b c'",
    "f() (exit 4); f; echo $?",
    # redirections and here-documents
    "echo out; echo err >&2; { echo both; echo e >&2; } 2>/dev/null",
    "{ echo to-err >&2; } 2>&1; echo gone >/dev/null 2>&1; echo $?",
    "read x <<E\nfrom here\nE\necho $x",
    'x=1; while read l; do echo "$l"; done <<E\n$x \\$x `echo sub` $((x+1)) "q" \'r\'\nE',
    "while IFS= read -r l; do echo \"[$l]\"; done <<'E'\n  $x \\n `no`\nE",
    'while read l; do echo "[$l]"; done <<-E\n\ttabbed\n\t\ttwice\n\tE\necho after',
    "read a <<A; read b <<B\none\nA\ntwo\nB\necho $a $b",
    "echo x > /nonexistent/dir/file; echo $?",
    "read x < /nonexistent; echo $?",
    ": > /nonexistent/dir/file; echo not reached",
    "exec 3>&1; echo via3 >&3; exec 3>&-; echo closed >&3; echo $?",
    "{ echo a; } > /nonexistent/x; echo $?",
    # set -e
    "set -e; false; echo never",
    "set -e; false || echo handled; false && echo no; echo still here",
    "set -e; if false; then :; fi; while false; do :; done; ! true; echo alive",
    "set -e; true && false; echo never",
    "set -e; (false; echo never); echo never either",
    "set -e; (false; echo tested-inside) || echo no; echo end",
    "set -e; f() { false; echo in-f; }; f || echo no; f; echo never",
    "set -e; x=$(false); echo never",
    'set -e; x=$(false; echo no) || echo caught; echo "[$x]"',
    "set -e; echo $(false) ok",
    "set -e; false | true; echo pipe-ok; true | false; echo never",
    "set -e; { false; echo a; } || echo b; { false; echo c; }; echo d",
    "set -e; ! { false; echo x; }; echo y",
    "set -e; set +e; false; echo alive",
    "set -e; eval false; echo never",
    "set -e; eval false || echo handled",
    "set -e; case x in x) false;; esac; echo never",
    "set -e; for i in 1 2; do false && echo no; echo $i; done",
    "set -e; nosuchcommand 2>/dev/null; echo never",
    "set -e; echo a > /nonexistent/x; echo never",
    "set -eu; trap 'echo trapped $?' EXIT; false",
    # traps and jobs
    "trap 'echo bye' EXIT; echo hello; exit 3",
    "trap 'echo bye' EXIT; trap - EXIT; echo hello",
    "trap 'echo outer' EXIT; (trap 'echo inner' EXIT; echo sub); echo main",
    "{ (trap 'echo bye >&2' EXIT; while :; do echo lost; done) 2>&3 | :; } 3>&1",
    "{ (trap 'echo bye >&2' EXIT; trap 'exit 1' PIPE; while :; do echo lost; done) 2>&3 | :; } 3>&1",
    "(echo bg) & wait; echo fg; (exit 3) & wait $!; echo $?",
    # built-ins
    "printf '%s-%s\\n' a b c; printf '%d %05d %x %o %c|%-5s|%5s|\\n' 42 42 255 8 xyz ab cd",
    "printf 'no newline'; printf '\\n\\101\\x41\\n'; printf '%b|%s\\n' 'a\\tb' 'a\\tb'; printf '%%\\n'",
    "printf '%s\\n'; printf '%d\\n' abc; echo $?",
    "echo -n a; echo 'b\\tc\\\\d\\0101'; echo 'stop\\chere'; echo -e x",
    "[ a = a ] && [ a != b ] && [ -n x ] && [ -z '' ] && [ 3 -gt 2 ] && echo all",
    "[ ! a = b ] && [ a = a -a b = b ] && [ a = b -o b = b ] && [ \\( a = a \\) ] && echo all",
    "[ x; echo $?; [ 1 -eq x ]; echo $?; test; echo $?; test a; echo $?; [ -n ]; echo $?",
    "[ -d / ] && [ -e /dev/null ] && [ ! -f / ] && [ ! -e /nonexistent ] && echo files",
    'read -r a b c <<E\none two three four\nE\necho "$a|$b|$c"',
    "read a b <<'E'\nback\\\\slash\\ kept con\\\ntinued\nE\necho \"$a|$b\"",
    "IFS=: read -r u p rest <<E\nroot:x:0:0\nE\necho $u $p $rest",
    "read x </dev/null; echo $?; printf 'no newline' | { read x; echo $? $x; }",
    "export A=1; readonly B=2; echo $A $B; unset A; echo ${A-gone}; B=3; echo never",
    "eval 'x=1; echo $x'; eval echo \\$x; eval ''; echo $?",
    "command -v echo nosuch; echo $?; command echo via; command -v nosuch; echo $?",
    "umask 077; umask; cd /; pwd; cd /nonexistent; echo $?",
    "set -f; echo *; set -- -x y; echo $1",
    "exec nosuchprogram; echo never",
    "shift 5; echo not reached",
    "false; x=$?; echo $x",
    # syntax errors
    "echo before\n)",
    "echo before; if true; then echo x",
    "echo 'unterminated",
    "for 1x in a; do :; done",
    "case x in esac; echo $?",
    "while true; do break; done; echo $?",
    '{ echo a; } | { read x; echo "got $x"; } && echo c',
    "x=1 y=$x; echo $y; x=a; x=b echo $x; echo $x",
    'echo ~ "~" \'~\' a~ | { read a b c d; [ "$a" = "$HOME" ] && echo home $b $c $d; }',
    "if ! false; then echo neg; fi; while ! true; do :; done; echo $?",
]


async def simulated(script: str) -> tuple[str, int, str]:
    machine = Machine("h", hypervisor="kvm", memory_bytes=1 << 30, cores=1, disk_bytes=1 << 30)
    machine.files.mkdir("/root", parents=True)
    out, err = BytesWriter(), BytesWriter()
    status = await run_script(machine, script, BytesReader(), out, err, {})
    return out.data.decode(), status, err.data.decode()


@pytest.mark.skipif(DASH is None, reason="dash is not installed: its answers cannot be compared")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_does_what_dash_does(script: str) -> None:
    assert DASH is not None
    env = {"HOME": "/root", "PATH": "/nonexistent"}
    real = subprocess.run([DASH, "-c", script, "sh"], env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True)
    output, status, complaints = asyncio.run(simulated(script))
    assert (output, status) == (real.stdout.decode(), real.returncode)
    assert complaints == real.stderr.decode()
