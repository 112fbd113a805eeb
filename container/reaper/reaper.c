// buoy-reaper is the parent of buoy-shim and the one program of ours that must
// outlive everything but the containers themselves.
//
//	buoy-reaper RUN_DIR SHIM
//
// It is a child subreaper in a session and a mount namespace of its own. It
// keeps SHIM running as "SHIM serve RUN_DIR 3"; SHIM ending with 0 ends it too.
// Orphans, which are what the containers become when a shim dies, are written
// to RUN_DIR/exits, "PID STARTTIME STATUS" (a wait status) with fdatasync,
// before they are reaped. So no exit is ever lost, and none can be mistaken.
//
// Descriptor 3 of the shim is a SOCK_SEQPACKET socket, one text per message:
//
//	to the shim    fd NAME + descriptor   what earlier shims left in store
//	               ready                  that was all
//	               exit PID START STATUS  was added to the journal (a hint:
//	                                      it may be left out, the journal counts)
//	               truncated, kept        answers to truncate
//	from the shim  store NAME + descriptor, drop NAME
//	               truncate SIZE          empty the journal if it is still SIZE long
//
// SIGTERM, SIGINT and SIGHUP are ignored: whoever stops services must not stop
// containers by it. Only one reaper serves a RUN_DIR, others leave with 0.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 512, FAST_DEATH_MS = 2000, FIRST_DELAY_MS = 50, LONGEST_DELAY_MS = 1000, RETRY_MS = 1000 };

struct stored {
	char *name;
	int fd;
};

static struct stored *store;
static size_t stored, room;

static int run_dir, journal, sock = -1;
static const char *run_dir_name, *shim_name;
static sigset_t old_mask;
static pid_t shim;
static long long shim_started, restart_at, delay_ms = FIRST_DELAY_MS;

static void say(const char *format, ...)
{
	char buf[MESSAGE];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(buf, sizeof buf, format, ap);
	va_end(ap);
	dprintf(2, "buoy-reaper: %.*s\n", n, buf);
}

static void die(const char *what)
{
	say("%s: %s", what, strerror(errno));
	exit(1);
}

static long long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// tell sends one message; a full or dead socket is the shim's business.
static int tell(int fd, int flags, const char *format, ...)
{
	char buf[MESSAGE];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(buf, sizeof buf, format, ap);
	va_end(ap);
	struct iovec io = {buf, (size_t)n};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} c;
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
	if (fd >= 0) {
		m.msg_control = &c;
		m.msg_controllen = sizeof c.room;
		c.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&c.head), &fd, sizeof fd);
	}
	do
		n = (int)sendmsg(sock, &m, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n;
}

static void drop(const char *name)
{
	for (size_t i = 0; i < stored; i++) {
		if (strcmp(store[i].name, name))
			continue;
		close(store[i].fd);
		free(store[i].name);
		store[i] = store[--stored];
		return;
	}
}

static void keep(const char *name, int fd)
{
	drop(name);
	if (stored == room) {
		size_t more = room ? room * 2 : 64;
		struct stored *s = realloc(store, more * sizeof *s);
		if (!s) {
			close(fd);
			return;
		}
		store = s;
		room = more;
	}
	char *copy = strdup(name);
	if (!copy) {
		close(fd);
		return;
	}
	store[stored++] = (struct stored){copy, fd};
}

static void truncate_journal(const char *size)
{
	struct stat st;
	int done = !fstat(journal, &st) && st.st_size == atoll(size) && !ftruncate(journal, 0);
	tell(-1, MSG_DONTWAIT, done ? "truncated" : "kept");
}

// hear takes one message; 0: there is none, now or (gone) ever.
static int hear(int *gone)
{
	char buf[MESSAGE + 1];
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} c;
	struct iovec io = {buf, MESSAGE};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
	ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n <= 0) {
		*gone = n == 0 || (errno != EAGAIN && errno != EINTR);
		return 0;
	}
	buf[n] = 0;
	int fd = -1;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof fd))
		memcpy(&fd, CMSG_DATA(h), sizeof fd);
	if (!strncmp(buf, "store ", 6) && fd >= 0) {
		keep(buf + 6, fd);
		return 1;
	}
	if (fd >= 0)
		close(fd);
	if (!strncmp(buf, "drop ", 5))
		drop(buf + 5);
	else if (!strncmp(buf, "truncate ", 9))
		truncate_journal(buf + 9);
	return 1;
}

static void hear_all(void)
{
	int gone = 0;
	while (hear(&gone))
		;
	if (gone) {
		close(sock);
		sock = -1;
	}
}

static void become_shim(int end)
{
	char *argv[] = {(char *)shim_name, "serve", (char *)run_dir_name, "3", NULL};

	if (end == 3)
		fcntl(3, F_SETFD, 0);
	else if (dup2(end, 3) < 0)
		_exit(126);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigprocmask(SIG_SETMASK, &old_mask, NULL);
	execv(shim_name, argv);
	say("start %s: %s", shim_name, strerror(errno));
	_exit(127);
}

// keep_journal makes sure that the shim can open the journal: one that somebody
// has removed is made again, with what it had.
static void keep_journal(void)
{
	struct stat a, b;
	char buf[4096];
	ssize_t n;

	if (!fstat(journal, &a) && !fstatat(run_dir, "exits", &b, 0) && a.st_ino == b.st_ino && a.st_dev == b.st_dev)
		return;
	int fd = openat(run_dir, "exits", O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return say("make the journal again: %s", strerror(errno));
	for (off_t at = 0; (n = pread(journal, buf, sizeof buf, at)) > 0; at += n)
		if (write(fd, buf, (size_t)n) != n)
			say("copy the journal: %s", strerror(errno));
	close(journal);
	journal = fd;
}

static void start_shim(void)
{
	int pair[2];

	keep_journal();
	shim_started = now_ms();
	restart_at = shim_started + delay_ms;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return say("socketpair: %s", strerror(errno));
	shim = fork();
	if (shim == 0)
		become_shim(pair[1]);
	close(pair[1]);
	if (shim < 0) {
		shim = 0;
		close(pair[0]);
		return say("fork: %s", strerror(errno));
	}
	restart_at = 0;
	sock = pair[0];
	for (size_t i = 0; i < stored; i++)
		if (tell(store[i].fd, 0, "fd %s", store[i].name) < 0)
			return;
	tell(-1, 0, "ready");
}

static void leave(void)
{
	unlinkat(run_dir, "exits", 0);
	unlinkat(run_dir, "reaper.lock", 0);
	exit(0);
}

static void shim_ended(int status)
{
	shim = 0;
	if (sock >= 0)
		hear_all(); // what it stored before it died still counts
	if (sock >= 0) {
		close(sock);
		sock = -1;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		leave();
	if (now_ms() - shim_started >= FAST_DEATH_MS)
		delay_ms = FIRST_DELAY_MS;
	else
		delay_ms = delay_ms * 2 < LONGEST_DELAY_MS ? delay_ms * 2 : LONGEST_DELAY_MS;
	restart_at = now_ms() + (delay_ms > 2 * FIRST_DELAY_MS ? delay_ms : 0);
	say("%s ended (wait status %d), starting it again", shim_name, status);
}

// start_time is field 22 of /proc/PID/stat; the name before it may hold anything.
static unsigned long long start_time(pid_t pid)
{
	char buf[1024];
	snprintf(buf, sizeof buf, "/proc/%d/stat", pid);
	int fd = open(buf, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, buf, sizeof buf - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	char *p = strrchr(buf, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

// wait_status is what waitpid would have said.
static int wait_status(const siginfo_t *si)
{
	if (si->si_code == CLD_EXITED)
		return (si->si_status & 0xff) << 8;
	return (si->si_status & 0x7f) | (si->si_code == CLD_DUMPED ? 0x80 : 0);
}

// note makes one exit durable; 0: it could not, the zombie must wait.
static int note(pid_t pid, int status)
{
	char line[96];
	struct stat st;
	int n = snprintf(line, sizeof line, "%d %llu %d\n", pid, start_time(pid), status);
	if (fstat(journal, &st))
		return 0;
	ssize_t done = write(journal, line, (size_t)n);
	if (done != n || fdatasync(journal)) {
		if (ftruncate(journal, st.st_size))
			say("journal is damaged: %s", strerror(errno));
		return 0;
	}
	line[n - 1] = 0;
	tell(-1, MSG_DONTWAIT, "exit %s", line);
	return 1;
}

// reap notes and buries what has ended; 0: the disk is full, come again.
static int reap(void)
{
	siginfo_t si;
	int status;

	if (shim && waitpid(shim, &status, WNOHANG) == shim)
		shim_ended(status);
	for (;;) {
		si.si_pid = 0;
		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) || si.si_pid == 0)
			return 1;
		if (si.si_pid == shim)
			shim_ended(waitpid(shim, &status, 0) > 0 ? status : 0x7f00);
		else if (!note(si.si_pid, wait_status(&si)))
			return 0;
		else
			waitpid(si.si_pid, NULL, 0);
	}
}

// lock_dir makes this the only reaper of RUN_DIR. The file is compared because
// one that leaves removes it.
static void lock_dir(void)
{
	struct stat a, b;
	for (;;) {
		int fd = openat(run_dir, "reaper.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			die("open reaper.lock");
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			if (errno != EWOULDBLOCK)
				die("lock reaper.lock");
			say("%s is served already", run_dir_name);
			exit(0);
		}
		if (!fstat(fd, &a) && !fstatat(run_dir, "reaper.lock", &b, 0) && a.st_ino == b.st_ino) {
			if (!ftruncate(fd, 0))
				dprintf(fd, "%d\n", getpid());
			return;
		}
		close(fd);
	}
}

// share_mounts lets what is mounted on the host from now on (volumes, lazy
// images) appear in our namespace, too. systemd has made all mounts shared; a
// host without it has them private.
static void share_mounts(void)
{
	char line[4096];
	FILE *f = fopen("/proc/self/mountinfo", "re");
	int shared = 0;

	while (f && fgets(line, sizeof line, f))
		if (strstr(line, " / / ") && strstr(line, " shared:"))
			shared = 1;
	if (f)
		fclose(f);
	if (!shared && mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL))
		say("share mounts: %s", strerror(errno));
}

static void settle(void)
{
	struct rlimit files;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0)
		dup2(null, 0);
	share_mounts();
	setsid(); // fails only if this is a session leader already
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		die("make a mount namespace");
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
		files.rlim_cur = files.rlim_max = 1 << 20; // needs CAP_SYS_RESOURCE; best effort
		setrlimit(RLIMIT_NOFILE, &files);
	}
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, "-999", 4); // likewise
		close(fd);
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
}

static int until_restart(int retry)
{
	if (shim)
		return retry ? RETRY_MS : -1;
	long long wait = restart_at - now_ms();
	return wait < 0 ? 0 : wait > RETRY_MS ? RETRY_MS : (int)wait;
}

int main(int argc, char **argv)
{
	sigset_t chld;
	int retry = 0;

	if (argc != 3) {
		say("usage: buoy-reaper RUN_DIR SHIM");
		return 2;
	}
	run_dir_name = argv[1];
	shim_name = argv[2];
	run_dir = open(run_dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (run_dir < 0)
		die(run_dir_name);
	lock_dir();
	settle();
	journal = openat(run_dir, "exits", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (journal < 0)
		die("open the journal");
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, &old_mask);
	int sig = signalfd(-1, &chld, SFD_NONBLOCK | SFD_CLOEXEC);
	if (sig < 0)
		die("signalfd");
	for (;;) {
		if (!shim && now_ms() >= restart_at)
			start_shim();
		struct pollfd p[2] = {{sig, POLLIN, 0}, {sock, POLLIN, 0}};
		if (poll(p, 2, until_restart(retry)) < 0 && errno != EINTR)
			usleep(100 * 1000); // out of memory; ending would cost exit codes
		if (p[1].revents && sock >= 0)
			hear_all();
		struct signalfd_siginfo si;
		while (read(sig, &si, sizeof si) == sizeof si)
			;
		retry = !reap();
	}
}
