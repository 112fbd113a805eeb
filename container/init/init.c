// buoy-init is the last step before a container's program, and PID 1 of a
// container that asks for an init.
//
//	buoy-init OPTIONS [PROGRAM ARG...]
//
// OPTIONS: "-" and letters: s = descriptor 5 has a seccomp filter to load,
// i = stay as PID 1, t = 0 is a terminal, ours, and to be the child's. libcontainer starts it inside the container, with the
// final user, capabilities and limits, from a sealed memfd. Descriptor 3 is
// that memfd, 4 the gate: a socket on which it says 'r' (ready), waits for 'g'
// (go), and on which it reports a failed exec as 'e', the stage, and the errno
// in two bytes. A gate that closes without 'g' means the shim has given up.
// A successful exec closes the gate; that is how the shim learns of it.
//
// The memfd cannot be read, so that the kernel lets nobody in the container trace
// us before the filter is loaded; see unreadable in container/shim.
//
// With i it reaps orphans, passes signals on to its one child and ends as the
// child ended; without a program it ends on SIGTERM, SIGINT or SIGQUIT.
//
// No C library: 200 held containers wait here, see sys.h.
#include "sys.h"

#include <asm/ioctls.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/wait.h>

enum { SELF = 3, GATE = 4, FILTER = 5 };
enum { SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGKILL = 9, SIGTERM = 15, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19, SIGTTIN = 21, SIGTTOU = 22 };
enum { SIG_SETMASK = 2, NSIG = 64, SEEK_END = 2 };
enum { OURS = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

#define STDPATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct sigaction_ {
	void *handler;
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

struct filter_head {
	unsigned int flags;
	unsigned int len;
};

static void __attribute__((noreturn)) fail(char stage, long err)
{
	unsigned char m[4] = {'e', (unsigned char)stage, (unsigned char)err, (unsigned char)(err >> 8)};

	SYS(write, GATE, m, sizeof m);
	if (stage != 'x' && stage != 'p')
		leave(OURS);
	leave(err == ENOENT || err == ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE);
}

// Dispositions that somebody before us set to "ignore" would survive exec.
static void plain_signals(void)
{
	struct sigaction_ dfl = {0};
	unsigned long none = 0;

	for (int i = 1; i <= NSIG; i++)
		if (i != SIGKILL && i != SIGSTOP)
			SYS(rt_sigaction, i, &dfl, 0, 8);
	SYS(rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

// The filter is mapped, not read: it stays one copy for all that wait here.
static void load_filter(void)
{
	const struct filter_head *head;
	struct sock_fprog prog;
	long size = SYS(lseek, FILTER, 0, SEEK_END), n;

	if (size < (long)sizeof *head)
		fail('s', EINVAL);
	n = SYS(mmap, 0, size, PROT_READ, MAP_PRIVATE, FILTER, 0);
	if (n < 0 && n > -4096)
		fail('s', -n);
	SYS(close, FILTER);
	head = (const struct filter_head *)n;
	prog.len = (unsigned short)head->len;
	prog.filter = (struct sock_filter *)(head + 1);
	n = SYS(seccomp, SECCOMP_SET_MODE_FILTER, head->flags, &prog);
	if (n < 0)
		fail('s', -n);
	SYS(munmap, head, size);
}

static void wait_for_go(void)
{
	char c = 'r';
	long n;

	SYS(write, GATE, &c, 1);
	do
		n = SYS(read, GATE, &c, 1);
	while (n == -EINTR);
	if (n != 1 || c != 'g')
		leave(OURS);
}

static const char *path_of(char **env)
{
	for (; *env; env++) {
		const char *e = *env;
		if (e[0] == 'P' && e[1] == 'A' && e[2] == 'T' && e[3] == 'H' && e[4] == '=')
			return e + 5;
	}
	return STDPATH;
}

// try_exec returns the errno. A file that is there and still "not found" lacks
// its interpreter or loader: stage 'p' tells the two apart.
static long try_exec(const char *file, char **argv, char **env)
{
	long err = -SYS(execve, file, argv, env);

	if (err == ENOENT && SYS(faccessat, AT_FDCWD, file, 0) == 0)
		fail('p', err);
	return err;
}

static void __attribute__((noreturn)) run(char **argv, char **env)
{
	const char *name = argv[0], *p;
	char buf[4096];
	long err, seen = ENOENT;

	for (p = name; *p && *p != '/'; p++)
		;
	if (*p == '/' || !*name)
		fail('x', *name ? try_exec(name, argv, env) : ENOENT);
	for (p = path_of(env);;) {
		size_t n = 0;
		for (; *p && *p != ':'; p++)
			if (n < sizeof buf - 2)
				buf[n++] = *p;
		if (n)
			buf[n++] = '/';
		for (const char *q = name; *q && n < sizeof buf - 1; q++)
			buf[n++] = *q;
		buf[n] = 0;
		err = try_exec(buf, argv, env);
		if (err == EACCES)
			seen = err;
		else if (err != ENOENT && err != ENOTDIR)
			fail('x', err);
		if (!*p++)
			fail('x', seen);
	}
}

// reap takes what has ended and leaves with the child's status.
static void reap(long child)
{
	int st;
	long pid;

	while ((pid = SYS(wait4, -1, &st, WNOHANG, 0)) > 0)
		if (pid == child)
			leave((st & 0x7f) ? 128 + (st & 0x7f) : (st >> 8) & 0xff);
}

// show_name makes ps say what PID 1 is: the kernel takes the argument block for
// one text, up to its first NUL, once the block's last byte is not NUL.
static void show_name(char *first, char *end)
{
	static const char name[] = "buoy-init";

	if (end - first <= (long)sizeof name)
		return;
	for (size_t i = 0; i < sizeof name; i++)
		first[i] = name[i];
	end[-1] = '.';
}

// give_up_terminal makes it nobody's. The child takes it in a session of its own:
// in ours, Ctrl-Z would stop it for good. We are hung up on, which means nothing.
static void give_up_terminal(void)
{
	unsigned long hung_up = 1UL << (SIGHUP - 1) | 1UL << (SIGCONT - 1);
	long at_once[2] = {0, 0};

	SYS(ioctl, 0, TIOCNOTTY, 0);
	while (SYS(rt_sigtimedwait, &hung_up, 0, at_once, 8) > 0)
		;
}

static void __attribute__((noreturn)) stay(char *first, char **argv, char **env, int terminal)
{
	char *end = argv[-1];
	unsigned long all = ~0UL;
	long child = 0;

	SYS(rt_sigprocmask, SIG_SETMASK, &all, 0, 8);
	SYS(prctl, PR_SET_DUMPABLE, 1); // the filter is loaded: others may look, as at any process
	if (argv[0]) {
		if (terminal)
			give_up_terminal();
		child = SYS(clone, SIGCHLD, 0, 0, 0, 0);
		if (child < 0)
			fail('f', -child);
		if (child == 0) {
			unsigned long none = 0;
			SYS(setsid, 0);
			if (terminal)
				SYS(ioctl, 0, TIOCSCTTY, 0);
			SYS(rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
			run(argv, env);
		}
	}
	SYS(close, GATE);
	for (char **a = argv; *a; a++)
		end = *a;
	while (*end++)
		;
	show_name(first, end);
	for (;;) {
		long sig = SYS(rt_sigtimedwait, &all, 0, 0, 8);
		if (sig == SIGCHLD)
			reap(child);
		else if (sig > 0 && sig != SIGTTIN && sig != SIGTTOU) {
			if (child)
				SYS(kill, child, sig);
			else if (sig == SIGTERM || sig == SIGINT || sig == SIGQUIT)
				leave(0);
		}
	}
}

__attribute__((noreturn, used)) void start(long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1), **env = argv + argc + 1;
	int init = 0, filter = 0, terminal = 0;

	if (argc < 2 || argv[1][0] != '-')
		leave(OURS);
	for (const char *o = argv[1] + 1; *o; o++) {
		init |= *o == 'i';
		filter |= *o == 's';
		terminal |= *o == 't';
	}
	SYS(close, SELF);
	SYS(fcntl, GATE, F_SETFD, FD_CLOEXEC);
	SYS(prctl, PR_SET_NAME, "buoy-init");
	plain_signals();
	if (filter)
		load_filter();
	wait_for_go();
	if (init)
		stay(argv[0], argv + 2, env, terminal);
	if (argc < 3)
		fail('x', ENOENT);
	run(argv + 2, env);
}
