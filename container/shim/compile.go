//go:build linux && cgo && seccomp

package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// compile makes a sealed memfd for buoy-init: flags, number of instructions,
// instructions. Rules are given to libseccomp as libcontainer does it, and as
// there, system calls newer than any the profile names answer ENOSYS rather
// than the profile's error, so that libraries fall back to older ones.
func compile(profile *specs.LinuxSeccomp) (*os.File, error) {
	conf, err := specconv.SetupSeccomp(profile)
	if err != nil {
		return nil, errs.E(errs.Invalid, "read the seccomp profile: %w", err)
	}
	if conf == nil {
		conf = &configs.Seccomp{DefaultAction: configs.Allow}
	}
	filter, err := build(conf)
	if err != nil {
		return nil, errs.E(errs.Invalid, "compile the seccomp profile: %w", err)
	}
	defer filter.Release()
	code, err := export(filter)
	if err != nil {
		return nil, fmt.Errorf("compile the seccomp profile: %w", err)
	}
	prelude, err := tooNew(conf)
	if err != nil {
		return nil, fmt.Errorf("compile the seccomp profile: %w", err)
	}
	n := len(prelude) + len(code)/8
	if n > 4096 { // BPF_MAXINSNS
		return nil, errs.E(errs.Invalid, "the seccomp profile needs %d instructions, the kernel takes 4096", n)
	}
	return program(flagsOf(conf), prelude, code)
}

func build(conf *configs.Seccomp) (*libseccomp.ScmpFilter, error) {
	def, err := action(conf.DefaultAction, conf.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	filter, err := libseccomp.NewFilter(def)
	if err != nil {
		return nil, err
	}
	for _, name := range conf.Architectures {
		arch, err := libseccomp.GetArchFromString(name)
		if err == nil {
			err = filter.AddArch(arch)
		}
		if err != nil {
			return nil, fmt.Errorf("architecture %s: %w", name, err)
		}
	}
	if len(conf.Syscalls) > 32 {
		_ = filter.SetOptimize(2) // a binary tree; old libraries have none
	}
	for _, call := range conf.Syscalls {
		if err := addRule(filter, call, def); err != nil {
			return nil, fmt.Errorf("system call %s: %w", call.Name, err)
		}
	}
	return filter, nil
}

func action(a configs.Action, errno *uint) (libseccomp.ScmpAction, error) {
	ret := int16(unix.EPERM)
	if errno != nil {
		ret = int16(*errno)
	}
	switch a {
	case configs.Kill, configs.KillThread:
		return libseccomp.ActKillThread, nil
	case configs.KillProcess:
		return libseccomp.ActKillProcess, nil
	case configs.Errno:
		return libseccomp.ActErrno.SetReturnCode(ret), nil
	case configs.Trap:
		return libseccomp.ActTrap, nil
	case configs.Allow:
		return libseccomp.ActAllow, nil
	case configs.Trace:
		return libseccomp.ActTrace.SetReturnCode(ret), nil
	case configs.Log:
		return libseccomp.ActLog, nil
	case configs.Notify:
		return 0, errors.New("SCMP_ACT_NOTIFY is not supported")
	}
	return 0, fmt.Errorf("unknown action %d", a)
}

func addRule(filter *libseccomp.ScmpFilter, call *configs.Syscall, def libseccomp.ScmpAction) error {
	act, err := action(call.Action, call.ErrnoRet)
	if err != nil || act == def {
		return err
	}
	nr, err := libseccomp.GetSyscallFromName(call.Name)
	if err != nil {
		return nil //nolint:nilerr // a name this kernel's library does not know needs no rule
	}
	var conds []libseccomp.ScmpCondition
	var used [6]int
	for _, a := range call.Args {
		op, err := operator(a.Op)
		if err != nil {
			return err
		}
		cond, err := libseccomp.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return err
		}
		conds = append(conds, cond)
		used[a.Index]++
	}
	if len(conds) == 0 {
		return filter.AddRule(nr, act)
	}
	if slices.Max(used[:]) == 1 {
		return filter.AddRuleConditional(nr, act, conds)
	}
	// Several conditions on one argument are alternatives, as in runc.
	for _, c := range conds {
		if err := filter.AddRuleConditional(nr, act, []libseccomp.ScmpCondition{c}); err != nil {
			return err
		}
	}
	return nil
}

func operator(op configs.Operator) (libseccomp.ScmpCompareOp, error) {
	switch op {
	case configs.EqualTo:
		return libseccomp.CompareEqual, nil
	case configs.NotEqualTo:
		return libseccomp.CompareNotEqual, nil
	case configs.GreaterThan:
		return libseccomp.CompareGreater, nil
	case configs.GreaterThanOrEqualTo:
		return libseccomp.CompareGreaterEqual, nil
	case configs.LessThan:
		return libseccomp.CompareLess, nil
	case configs.LessThanOrEqualTo:
		return libseccomp.CompareLessOrEqual, nil
	case configs.MaskEqualTo:
		return libseccomp.CompareMaskedEqual, nil
	}
	return 0, fmt.Errorf("unknown comparison %d", op)
}

// export is the filter as instructions of 8 bytes.
func export(filter *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "seccomp")
	defer f.Close()
	if err := filter.ExportBPF(f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// auditArch is AUDIT_ARCH_* of what we run on. Of another architecture the
// newest call is not limited; its calls still meet the profile's rules.
func auditArch(a libseccomp.ScmpArch) (uint32, bool) {
	switch a {
	case libseccomp.ArchAMD64:
		return unix.AUDIT_ARCH_X86_64, true
	case libseccomp.ArchX86:
		return unix.AUDIT_ARCH_I386, true
	case libseccomp.ArchARM64:
		return unix.AUDIT_ARCH_AARCH64, true
	case libseccomp.ArchARM:
		return unix.AUDIT_ARCH_ARM, true
	}
	return 0, false
}

// Instructions and offsets in struct seccomp_data.
const (
	bpfLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	bpfJeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfJgt  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	bpfRet  = unix.BPF_RET | unix.BPF_K

	offNr, offArch = 0, 4

	x32Bit = 0x40000000
)

// tooNew is the code that answers ENOSYS to system calls above the largest
// number that the profile names, one piece for each architecture:
//
//	load arch; is it this one, else go on behind; load nr; nr > largest, and
//	not an x32 number: return ENOSYS
func tooNew(conf *configs.Seccomp) ([]unix.SockFilter, error) {
	switch conf.DefaultAction {
	case configs.Allow, configs.Log, configs.Trace:
		return nil, nil
	}
	archs, err := architectures(conf)
	if err != nil {
		return nil, err
	}
	var code []unix.SockFilter
	for _, a := range archs {
		id, ok := auditArch(a)
		var last libseccomp.ScmpSyscall
		for _, call := range conf.Syscalls {
			if nr, err := libseccomp.GetSyscallFromNameByArch(call.Name, a); err == nil {
				last = max(last, nr)
			}
		}
		if !ok || last <= 0 {
			continue
		}
		code = append(code,
			unix.SockFilter{Code: bpfLoad, K: offArch},
			unix.SockFilter{Code: bpfJeq, Jf: 4, K: id},
			unix.SockFilter{Code: bpfLoad, K: offNr},
			unix.SockFilter{Code: bpfJgt, Jf: 2, K: uint32(last)},
			unix.SockFilter{Code: bpfJgt, Jt: 1, K: x32Bit - 1},
			unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		)
	}
	return code, nil
}

func architectures(conf *configs.Seccomp) ([]libseccomp.ScmpArch, error) {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, err
	}
	archs := []libseccomp.ScmpArch{native}
	for _, name := range conf.Architectures {
		a, err := libseccomp.GetArchFromString(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(archs, a) {
			archs = append(archs, a)
		}
	}
	return archs, nil
}

// flagsOf are the flags of seccomp(2). TSYNC says nothing for one thread.
func flagsOf(conf *configs.Seccomp) (flags uint32) {
	for _, f := range conf.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		}
	}
	return flags
}

func program(flags uint32, prelude []unix.SockFilter, code []byte) (*os.File, error) {
	ne := binary.NativeEndian
	buf := ne.AppendUint32(nil, flags)
	buf = ne.AppendUint32(buf, uint32(len(prelude)+len(code)/8))
	for _, i := range prelude {
		buf = ne.AppendUint16(buf, i.Code)
		buf = append(buf, i.Jt, i.Jf)
		buf = ne.AppendUint32(buf, i.K)
	}
	buf = append(buf, code...)
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "seccomp")
	if _, err := f.Write(buf); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Chmod(0o444); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return f, err
}
