package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// testPlace is a machine with two variables, three files and the working directory /here.
func testPlace() place {
	return place{
		getenv: func(name string) string { return map[string]string{"HOME": "/root", "EMPTY": ""}[name] },
		readFile: func(name string) ([]byte, error) {
			switch name {
			case "env":
			case "hush":
				return []byte("hush\n"), nil
			case "binary":
				return []byte{0xff}, nil
			default:
				return nil, fs.ErrNotExist
			}
			return []byte("# a comment\n\nFILE=yes # no comment\r\n  A=file\nHOME\n"), nil
		},
		abs: func(path string) (string, error) {
			if path == "../far" {
				return "", errors.New("too far")
			}
			return "/here/" + strings.TrimPrefix(path, "./"), nil
		},
	}
}

// TestRequest: what is typed becomes what is sent. Each wants its own fields
// besides name, flist and the default NIC.
func TestRequest(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"alpine", `{}`},
		{"--name web alpine sh -c x", `{"name":"web","command":["sh","-c","x"]}`},
		{"alpine -d --name x", `{"command":["-d","--name","x"]}`},
		{
			"--hostname h -u 1:2 -w /w --init --read-only --privileged --keep --userns alpine",
			`{"hostname":"h","user":"1:2","pwd":"/w","init":true,"readOnly":true,"privileged":true,"keep":true,"userns":true}`,
		},
		{"--entrypoint /bin/sh alpine -c ls", `{"entrypoint":["/bin/sh"],"command":["-c","ls"]}`},
		{"-e A=1 -e B= -e A=2=3 -e HOME -e NOSUCH alpine", `{"env":["A=2=3","B=","HOME=/root"]}`},
		{"--secret A=hush --secret /run/a=hush alpine", `{"secrets":[{"env":"A","value":"hush"},{"path":"/run/a","value":"hush\n"}]}`},
		{"--env-file env -e A=flag alpine", `{"env":["FILE=yes # no comment","A=flag","HOME=/root"]}`},
		{
			"-v /a:/b -v ./c:/d:ro -v /e:/f:rw alpine",
			`{"mounts":[{"type":"bind","source":"/a","target":"/b"},{"type":"bind","source":"/here/c","target":"/d","readOnly":true},{"type":"bind","source":"/e","target":"/f"}]}`,
		},
		{"--tmpfs /t --tmpfs /u:size=64m,ro alpine", `{"mounts":[{"type":"tmpfs","target":"/t"},{"type":"tmpfs","target":"/u","readOnly":true,"size":67108864}]}`},
		{
			"--device /dev/a --device /dev/a:/dev/b --device /dev/a:rw --device /dev/a:/dev/b:r alpine",
			`{"devices":[{"path":"/dev/a"},{"path":"/dev/a","target":"/dev/b"},{"path":"/dev/a","permissions":"rw"},{"path":"/dev/a","target":"/dev/b","permissions":"r"}]}`,
		},
		{"--device nvidia.com/gpu=GPU-1 alpine", `{"devices":[{"path":"nvidia.com/gpu=GPU-1"}]}`},
		{"--gpus all alpine", `{"gpus":{"count":-1}}`},
		{"--gpus 2 alpine", `{"gpus":{"count":2}}`},
		{"--gpus device=GPU-1,GPU-2 alpine", `{"gpus":{"devices":["GPU-1","GPU-2"]}}`},
		{`--gpus "device=0,1",capabilities=utility alpine`, `{"gpus":{"devices":["0","1"],"capabilities":["utility"]}}`},
		{"--gpus 1,capabilities=gpu,compute alpine", `{"gpus":{"count":1,"capabilities":["compute"]}}`},
		{"--gpus count=2,model=A100,memory=40g,vendor=nvidia alpine", `{"gpus":{"count":2,"vendor":"nvidia","model":"A100","memory":42949672960}}`},
		{"--gpus profile=1g.5gb alpine", `{"gpus":{"profile":"1g.5gb"}}`},
		{"--gpus slices=4 alpine", `{"gpus":{"slices":4}}`},
		{"--gpus all,share=8Gi alpine", `{"gpus":{"count":-1,"share":8589934592}}`},
		{"-p 80:80 -p 127.0.0.1:53:5353/udp alpine", `{"ports":["80:80","127.0.0.1:53:5353/udp"]}`},
		{"--network host alpine", `{"hostNetworking":true,"nics":[]}`},
		{"--network none alpine", `{"nics":[]}`},
		{
			"--nic type=vlan,id=100,cidr=10.1.0.5/24,gateway=10.1.0.1,dns=1.1.1.1,dns=9.9.9.9 alpine",
			`{"nics":[{"type":"vlan","id":"100","config":{"dhcp":false,"cidr":"10.1.0.5/24","gateway":"10.1.0.1","dns":["1.1.1.1","9.9.9.9"]}}]}`,
		},
		{
			"--network default --nic type=bridge,id=br0,name=lan,dhcp,hwaddr=02:00:00:00:00:01 alpine",
			`{"nics":[{"type":"default","id":""},{"type":"bridge","id":"br0","name":"lan","hwaddr":"02:00:00:00:00:01","config":{"dhcp":true,"cidr":"","gateway":"","dns":[]}}]}`,
		},
		{"--log-opt max-size=1m --log-opt max-file=2 alpine", `{"logs":{"maxSize":1048576,"maxFiles":2}}`},
		{"-m 64Mi --cpus 0.5 --pids-limit 10 --shm-size 1g alpine", `{"limits":{"milliCPU":500,"memory":67108864,"pids":10},"shmSize":1073741824}`},
		{
			"--ulimit nofile=1024:2048 --ulimit core=unlimited --ulimit nproc=5 alpine",
			`{"ulimits":[{"name":"nofile","soft":1024,"hard":2048},{"name":"core","soft":18446744073709551615,"hard":18446744073709551615},{"name":"nproc","soft":5,"hard":5}]}`,
		},
		{"--sysctl net.core.somaxconn=1024 -l a=b=c -l d alpine", `{"sysctls":{"net.core.somaxconn":"1024"},"labels":{"a":"b=c","d":""}}`},
		{"--cap-add NET_ADMIN --cap-drop ALL alpine", `{"capAdd":["NET_ADMIN"],"capDrop":["ALL"]}`},
		{"--restart on-failure:3 --stop-signal INT --stop-timeout 2 alpine", `{"restart":"on-failure:3","stopSignal":"INT","stopGrace":2}`},
		{"--dns 1.1.1.1 --storage redis://h:1 --lazy never /x.flist", `{"flist":"/x.flist","dns":["1.1.1.1"],"lazy":"never","storage":"redis://h:1"}`},
		{
			"--health-http 8080/health?x=1 --health-interval 30s --health-timeout 500ms --health-retries 5 --health-start-period 1m --health-restart --health-drain 10s alpine",
			`{"health":{"type":"http","port":8080,"path":"/health?x=1","period":30,"timeout":0.5,"failureThreshold":5,"initialDelay":60,"restart":true,"drain":10}}`,
		},
		{"--health-http https://:8443 alpine", `{"health":{"type":"http","port":8443,"scheme":"https"}}`},
		{"--health-http http://localhost:80/ alpine", `{"health":{"type":"http","port":80,"scheme":"http","path":"/"}}`},
		{"--health-tcp 5432 alpine", `{"health":{"type":"tcp","port":5432}}`},
		{"--health-cmd pg_isready alpine", `{"health":{"type":"exec","command":["/bin/sh","-c","pg_isready"]}}`},
		{"./rootfs.tar", `{"flist":"/here/rootfs.tar"}`},
		{"oci:dir:tag", `{"flist":"oci:/here/dir:tag"}`},
		{"docker-archive:/abs.tar", `{"flist":"docker-archive:/abs.tar"}`},
	} {
		want := map[string]any{"name": "", "flist": "alpine", "nics": []any{map[string]any{"type": "default", "id": ""}}}
		if err := json.Unmarshal([]byte(test.want), &want); err != nil {
			t.Fatal(err)
		}
		wantText, _ := json.Marshal(want)
		r, err := requestOf(test.args)
		if err != nil {
			t.Errorf("run %s: %v", test.args, err)
			continue
		}
		if got := canonical(t, r); got != string(wantText) {
			t.Errorf("run %s\n got %s\nwant %s", test.args, got, wantText)
		}
	}
}

func TestRequestRefuses(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"-e =x alpine", "--env =x: want K=V"},
		{"--secret A alpine", "--secret A: want PATH=FILE"},
		{"--secret A=nosuch alpine", "--secret A: file does not exist"},
		{"--secret A=binary alpine", "--secret A: binary is not UTF-8"},
		{"--env-file nosuch alpine", "--env-file: file does not exist"},
		{"-v data:/b alpine", "volumes have no names here"},
		{"-v /a alpine", "want SRC:DST[:ro]"},
		{"-v /a:b alpine", "want SRC:DST[:ro]"},
		{"-v /a:/b:z alpine", "want ro or rw"},
		{"-v ../far:/b alpine", "too far"},
		{"../far", `image "../far": too far`},
		{"--tmpfs t alpine", "want an absolute path"},
		{"--tmpfs /t:mode=1 alpine", `option "mode"`},
		{"--tmpfs /t:size=x alpine", `size "x"`},
		{"--device sda alpine", "want PATH"},
		{"--device /a:/b:/c alpine", "want PATH"},
		{"--device /a:b alpine", "want PATH"},
		{"--device gpu=0 alpine", "or vendor.com/class=name"},
		{"--gpus x alpine", `"x" is neither all nor a number`},
		{"--gpus 0 alpine", `"0" is neither all nor a number`},
		{"--gpus -2 alpine", `"-2" is neither all nor a number`},
		{"--gpus all,1 alpine", `"1" is none of count`},
		{"--gpus options=x alpine", `"options" is none of count`},
		{`--gpus "device=0 alpine`, "--gpus"},
		{"--gpus memory=x alpine", `size "x"`},
		{"--gpus slices=many alpine", "is no number"},
		{"-p 80 alpine", "want [ADDRESS:]HOST:GUEST"},
		{"-p 80:80/sctp alpine", "want [ADDRESS:]HOST:GUEST"},
		{"-p 0:80 alpine", "want [ADDRESS:]HOST:GUEST"},
		{"-p 80:65536 alpine", "want [ADDRESS:]HOST:GUEST"},
		{"--network bridge alpine", "want default, host or none"},
		{"--network host -p 80:80 alpine", "--network host has no NICs"},
		{"--nic id=1 alpine", "want at least type="},
		{"--nic type=vlan,vlan=1 alpine", `"vlan" is none of`},
		{"-m 1q alpine", "--memory: size"},
		{"-m 64 alpine", `--memory: size "64" is in bytes; the units are b, k, m and g, as in 64m`},
		{"--tmpfs /t:size=64 alpine", `--tmpfs "/t:size=64": size "64" is in bytes`},
		{"--cpus x alpine", "--cpus: cpus"},
		{"--pids-limit -2 alpine", "--pids-limit -2"},
		{"--ulimit nofile alpine", "want NAME=SOFT[:HARD]"},
		{"--ulimit nofile=2:1 alpine", "above the hard one"},
		{"--sysctl x alpine", `--sysctl "x": want K=V`},
		{"-l =x alpine", `--label "=x"`},
		{"--restart sometimes alpine", "--restart sometimes: want"},
		{"--restart always:3 alpine", "--restart always:3: want"},
		{"--restart on-failure:x alpine", "want a number"},
		{"--rm --restart always alpine", "exclude each other"},
		{"--rm -d alpine", "in the foreground only"},
		{"--stop-timeout -1 alpine", "0 or more seconds"},
		{"--health-interval 3s alpine", "how its health is checked is not said"},
		{"--health-restart alpine", "how its health is checked is not said"},
		{"--health-tcp 80 --health-cmd x alpine", "exclude each other"},
		{"--health-tcp 0 alpine", "--health-tcp 0: want a port"},
		{"--health-tcp 65536 alpine", "--health-tcp 65536: want a port"},
		{"--health-http /health alpine", "--health-http /health: want PORT/PATH"},
		{"--health-http ftp://:80/ alpine", "want PORT/PATH"},
		{"--health-http http://example.com:80/ alpine", "want PORT/PATH"},
		{"--health-tcp 80 --health-interval -1s alpine", "--health-interval -1s: want a time"},
		{"--health-tcp 80 --health-retries -1 alpine", "--health-retries -1: want"},
		{"--health-tcp 80 --health-drain 1s alpine", "--health-drain is for --health-restart"},
		{"--pull often alpine", "want missing, always or never"},
		{"--entrypoint= alpine", "--entrypoint cannot be empty"},
	} {
		_, err := requestOf(test.args)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("run %s: %v, want %q in it", test.args, err, test.want)
		}
	}
}

func requestOf(args string) (any, error) {
	f := &runFlags{}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.register(flags)
	if err := flags.Parse(strings.Fields(args)); err != nil {
		return nil, err
	}
	f.given(flags)
	return f.request(flags.Args(), testPlace())
}

// canonical is v in JSON with its keys in order.
func canonical(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	var any any
	if err := decoder.Decode(&any); err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(any)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
