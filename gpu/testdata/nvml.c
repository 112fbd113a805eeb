// A libnvidia-ml.so.1 for tests. How it behaves is said by the file $FAKE_NVML,
// which is read anew by every call: lines "KEY VALUE". The name of a function as
// KEY makes it return the error VALUE, or with "hang" never return, or with
// "exit" end the process. A GPU is A100s' like, of 40 GiB.
#include <nvml.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int rule(const char *key, char *value, size_t size)
{
	const char *name = getenv("FAKE_NVML");
	FILE *f = name ? fopen(name, "r") : NULL;
	char line[8192];
	size_t n = strlen(key);
	int found = 0;
	while (f && !found && fgets(line, sizeof line, f))
		if (!strncmp(line, key, n) && line[n] == ' ') {
			line[strcspn(line, "\n")] = 0;
			snprintf(value, size, "%s", line + n + 1);
			found = 1;
		}
	if (f)
		fclose(f);
	return found;
}

static long number(const char *key, int i, long otherwise)
{
	char name[100], value[100];
	snprintf(name, sizeof name, i < 0 ? "%s" : "%s.%d", key, i);
	return rule(name, value, sizeof value) ? strtol(value, NULL, 0) : otherwise;
}

// A handle is 0x1000 and the GPU's number, for an instance of it 0x2000, 0x3000, ….
static int gpu(nvmlDevice_t d) { return (uintptr_t)d.handle & 0xfff; }
static int part(nvmlDevice_t d) { return (int)((uintptr_t)d.handle >> 12) - 2; }
static nvmlDevice_t handle(int gpu, int part) { return (nvmlDevice_t){ (void *)(uintptr_t)(((part + 2) << 12) + gpu) }; }

static nvmlReturn_t allow(const char *function, int gpu)
{
	char value[100];
	if (rule(function, value, sizeof value)) {
		while (!strcmp(value, "hang"))
			pause();
		if (!strcmp(value, "exit")) {
			fprintf(stderr, "fake: %s exits\n", function);
			_exit(3);
		}
		return strtol(value, NULL, 0);
	}
	return gpu >= 0 && number("lost", gpu, 0) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

#define ALLOW(gpu) do { nvmlReturn_t r = allow(__func__, gpu); if (r) return r; } while (0)

static void text(const char *key, int i, const char *otherwise, char *to, unsigned size)
{
	char name[100], value[8000];
	snprintf(name, sizeof name, i < 0 ? "%s" : "%s.%d", key, i);
	snprintf(to, size, "%s", rule(name, value, sizeof value) ? value : otherwise);
}

nvmlReturn_t nvmlInit_v2(void) { ALLOW(-1); return NVML_SUCCESS; }
nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }
const char *nvmlErrorString(nvmlReturn_t r) { return r == NVML_ERROR_UNKNOWN ? "Unknown Error" : "An Error"; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *v, unsigned n) { ALLOW(-1); text("driver", -1, "550.54.15", v, n); return 0; }
nvmlReturn_t nvmlSystemGetNVMLVersion(char *v, unsigned n) { ALLOW(-1); text("library", -1, "12.550.54.15", v, n); return 0; }
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *v) { ALLOW(-1); *v = 12040; return 0; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *n) { ALLOW(-1); *n = number("count", -1, 2); return 0; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned i, nvmlDevice_t *d) { ALLOW(-1); *d = handle(i, -1); return number("handle", i, 0); }

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *v, unsigned n)
{
	char otherwise[100];
	if (part(d) >= 0) {
		snprintf(v, n, "MIG-%08d-0000-0000-0000-%012d", gpu(d), part(d));
		return 0;
	}
	snprintf(otherwise, sizeof otherwise, "GPU-%08d-0000-0000-0000-000000000000", gpu(d));
	text("uuid", gpu(d), otherwise, v, n); // a lost GPU's is known all the same
	return allow(__func__, -1);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *v, unsigned n)
{
	ALLOW(gpu(d));
	text("name", gpu(d), part(d) < 0 ? "NVIDIA A100-SXM4-40GB" : "NVIDIA A100-SXM4-40GB MIG 1g.5gb", v, n);
	return 0;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *p)
{
	char otherwise[32];
	ALLOW(-1);
	memset(p, 0, sizeof *p);
	snprintf(otherwise, sizeof otherwise, "00000000:%02X:00.0", 0x3b + gpu(d));
	text("bus", gpu(d), otherwise, p->busId, sizeof p->busId);
	return 0;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned *n) { ALLOW(gpu(d)); *n = gpu(d); return 0; }

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m)
{
	ALLOW(gpu(d));
	m->total = (part(d) < 0 ? 40960ULL : 4864ULL) << 20;
	m->used = 1ULL << 30;
	m->free = m->total - m->used;
	return 0;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned *now, unsigned *then)
{
	ALLOW(gpu(d));
	*now = *then = number("mig", gpu(d), 0) > 0;
	return 0;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned *n) { ALLOW(gpu(d)); *n = 7; return 0; }

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned i, nvmlDevice_t *mig)
{
	ALLOW(gpu(d));
	*mig = handle(gpu(d), i);
	return (long)i < number("mig", gpu(d), 0) ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t d, unsigned *id) { ALLOW(gpu(d)); *id = 7 + part(d); return 0; }
nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t d, unsigned *id) { ALLOW(gpu(d)); *id = 0; return 0; }

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u)
{
	ALLOW(gpu(d));
	u->gpu = number("utilization", gpu(d), 42);
	u->memory = 7;
	return 0;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t s, unsigned *t) { ALLOW(gpu(d)); *t = 33 + s; return 0; }
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned *mw) { ALLOW(gpu(d)); *mw = 61500; return 0; }
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned *mw) { ALLOW(gpu(d)); *mw = 400000; return 0; }
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t kind, nvmlEccCounterType_t period, unsigned long long *n)
{
	ALLOW(gpu(d));
	*n = 1 + kind + 2 * period;
	return 0;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t d, unsigned *n, nvmlProcessInfo_v1_t *list)
{
	long pid = number("pid", gpu(d), 0);
	ALLOW(gpu(d));
	*n = pid != 0;
	if (pid) {
		list[0].pid = pid;
		list[0].usedGpuMemory = 512 << 20;
	}
	return 0;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuTopologyLevel_t *level)
{
	ALLOW(gpu(a));
	*level = number("level", gpu(b), NVML_TOPOLOGY_HOSTBRIDGE);
	return 0;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t d, unsigned link, nvmlEnableState_t *on)
{
	ALLOW(gpu(d));
	*on = (long)link < number("nvlinks", gpu(d), 0);
	return 0;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t d, unsigned link, nvmlPciInfo_t *p)
{
	(void)link;
	return nvmlDeviceGetPciInfo_v3(handle(!gpu(d), -1), p);
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) { ALLOW(-1); *set = (nvmlEventSet_t){ (void *)0x4000 }; return 0; }
nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t d, unsigned long long *types) { ALLOW(gpu(d)); *types = nvmlEventTypeXidCriticalError; return 0; }
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t set) { (void)types; (void)set; ALLOW(gpu(d)); return 0; }

// The line "xid NUMBER CODE GPU" is an event, told once for each NUMBER. Once it
// is waited for the next one, that NUMBER is in the file $FAKE_NVML.seen.
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *e, unsigned ms)
{
	static int seen;
	char name[4096];
	FILE *f;
	(void)set;
	snprintf(name, sizeof name, "%s.seen", getenv("FAKE_NVML"));
	if ((f = fopen(name, "w"))) {
		fprintf(f, "%d", seen);
		fclose(f);
	}
	for (unsigned waited = 0; waited < ms; waited += 5) {
		char value[100];
		int n, code, i;
		ALLOW(-1);
		if (rule("xid", value, sizeof value) && sscanf(value, "%d %d %d", &n, &code, &i) == 3 && n != seen) {
			seen = n;
			memset(e, 0, sizeof *e);
			e->device = handle(i, -1);
			e->eventType = nvmlEventTypeXidCriticalError;
			e->eventData = code;
			return NVML_SUCCESS;
		}
		usleep(5000);
	}
	return NVML_ERROR_TIMEOUT;
}
