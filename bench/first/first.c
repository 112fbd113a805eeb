// first is the container's program of the benchmarks: the first thing it does
// is to look at the clock (CLOCK_MONOTONIC, which namespaces share), and it
// says what it saw in nanoseconds. With an argument it then stays until
// somebody signals it, as a small server would; with a second one it is a
// server: it answers HTTP requests at that port with what it has said. No C
// library: nothing happens between exec and the clock.
#include "sys.h"

enum {
	MONOTONIC = 1, STDOUT = 1, SIG_BLOCK = 0,
	AF_INET = 2, SOCK_STREAM = 1, BACKLOG = 512, POLLIN = 1,
};

struct address { unsigned short family, port; unsigned int host; char zero[8]; };
struct poll { int fd; short events, happened; };

static const char head[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

// answer serves until a signal comes.
static void answer(const char *number, unsigned long *signals, const char *text, long size)
{
	unsigned port = 0;
	struct address any = { AF_INET, 0, 0, { 0 } };
	struct poll fds[2] = { { -1, POLLIN, 0 }, { -1, POLLIN, 0 } };
	char request[4096];
	int c;

	for (; *number >= '0' && *number <= '9'; number++)
		port = port * 10 + (unsigned)(*number - '0');
	any.port = (unsigned short)(port >> 8 | port << 8);
	fds[0].fd = (int)SYS(socket, AF_INET, SOCK_STREAM);
	if (SYS(bind, fds[0].fd, &any, sizeof any) || SYS(listen, fds[0].fd, BACKLOG))
		leave(1);
	fds[1].fd = (int)SYS(signalfd4, -1, signals, 8);
	for (;;) {
		SYS(ppoll, fds, 2);
		if (fds[1].happened)
			return;
		if (!fds[0].happened)
			continue;
		c = (int)SYS(accept4, fds[0].fd);
		if (c < 0)
			continue;
		if (SYS(read, c, request, sizeof request) > 0) {
			SYS(write, c, head, sizeof head - 1);
			SYS(write, c, text, size);
		}
		SYS(close, c);
	}
}

__attribute__((noreturn, used)) void start(long *stack)
{
	struct { long sec, nsec; } t;
	unsigned long all = ~0UL;
	char text[32];
	char *at = text + sizeof text;
	long now;

	SYS(clock_gettime, MONOTONIC, &t);
	now = t.sec * 1000000000 + t.nsec;
	*--at = '\n';
	for (; now; now /= 10)
		*--at = (char)('0' + now % 10);
	if (stack[0] > 1)
		SYS(rt_sigprocmask, SIG_BLOCK, &all, 0, 8);
	SYS(write, STDOUT, at, text + sizeof text - at);
	if (stack[0] > 2)
		answer((const char *)stack[3], &all, at, text + sizeof text - at);
	else if (stack[0] > 1)
		SYS(rt_sigtimedwait, &all, 0, 0, 8);
	leave(0);
}
