//go:build linux && cgo

package shim_test

import ("testing";"os";"os/exec";"strconv";"time")

func TestTrace(t *testing.T) {
	if os.Getenv("BUOY_TRACE")=="" { t.Skip() }
	n := startNode(t)
	for i:=0;i<5;i++ { n.mustRun(n.bench("w","true")); n.exit("w"); n.Delete(t.Context(),"w") }
	cmd := exec.Command("strace","-f","-ttt","-T","-o","/tmp/trace.out","-p",strconv.Itoa(n.awaitShim().PID))
	cmd.Start()
	time.Sleep(time.Second)
	n.mustRun(n.bench("w","true")); n.exit("w"); n.Delete(t.Context(),"w")
	time.Sleep(300*time.Millisecond)
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
}
