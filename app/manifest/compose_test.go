package manifest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/app/manifest"
)

func TestComposeProblems(t *testing.T) {
	service := func(more string) string { return "services:\n  web:\n    image: a\n    " + more + "\n" }
	for _, test := range []struct{ text, want string }{
		{"services: []\n", "services is a list; it must be an object"},
		{"services: {web: }\n", "services.web is empty; it must be an object"},
		{"services: {web: {}}\n", "services.web.image is missing: images are not built here"},
		{service("build: ."), "services.web.build is refused: images are not built here; build it, push it to a registry and name it in image (line 4)"},
		{service("env_file: .env"), "services.web.env_file is refused: the files are not here"},
		{service("extends: {service: b}"), "services.web.extends is refused"},
		{service("secrets: [a]"), "services.web.secrets is refused"},
		{service("configs: [a]"), "services.web.configs is refused"},
		{service("container_name: a"), "services.web.container_name is refused"},
		{service("networks: [front]"), "services.web.networks[0] is refused: all services are in one network"},
		{service("networks: {default: {aliases: [a]}}"), "services.web.networks.default is refused"},
		{service("network_mode: service:db"), `services.web.network_mode is "service:db"; it must be host, none, bridge or default`},
		{service("tty: maybe"), `services.web.tty is the text "maybe"; it must be true or false (line 4)`},
		{service("logging: {driver: syslog}"), `services.web.logging.driver is "syslog"; it must be json-file or local (line 4)`},
		{service("logging: {driver: local, options: {compress: 'true'}}"), "services.web.logging.options.compress is not known here"},
		{service("logging: {options: {max-size: 4k}}"), "services.web.logging.options.max-size is \"4k\"; it must be 262144 to 1125899906842624 bytes (line 4)"},
		{service("logging: {options: {max-file: some}}"), `services.web.logging.options.max-file is "some"; it must be 1 to 100 (line 4)`},
		{service("logging: {options: {max-file: '101'}}"), "services.web.logging.options.max-file is 101; it must be 1 to 100 (line 4)"},
		{service("logging: {options: {max-file: 0}}"), "services.web.logging.options.max-file is \"0\"; it must be 1 to 100 (line 4)"},
		{service("comand: b"), `services.web.comand is not known here; did you mean "command"? (line 4)`},
		{service("command: \"a 'b\""), "services.web.command is \"a 'b\", whose quotes do not end"},
		{service("image: b"), "services.web.image is there twice"},
		{service("environment: [A]"), "services.web.environment[0] has no value for A"},
		{service("environment: {A: }"), "services.web.environment.A has no value for A"},
		{service("working_dir: ${HOME}"), `services.web.working_dir has a variable in "${HOME}", which is not filled in here`},
		{service("ports: ['127.0.0.1:80:80']"), "services.web.ports[0] is published at 127.0.0.1 alone"},
		{service("ports: ['80:http']"), "services.web.ports[0] cannot be read"},
		{service("ports: ['80-81:80']"), "services.web.ports[0] cannot be read"},
		{service("ports: ['80:80/sctp']"), `services.web.ports[0] has the protocol "sctp"`},
		{service("volumes: ['./a:/a']"), "services.web.volumes[0] is below the folder of the Compose file"},
		{service("volumes: ['/a']"), "services.web.volumes[0] is \"/a\"; it must name what is mounted, as in data:/a"},
		{service("volumes: ['data:/a']"), `services.web.volumes[0] names the volume "data", which is not among the volumes of the file`},
		{service("volumes: ['/a:/a:z']"), `services.web.volumes[0] has the option "z"`},
		{service("tmpfs: ['/a:mode=700']"), "services.web.tmpfs[0] has the options"},
		{service("restart: sometimes"), `services.web.restart is "sometimes"`},
		{service("stop_grace_period: 10"), `services.web.stop_grace_period is the number 10; it must be a time like "10s"`},
		{service("healthcheck: {interval: 5s}"), "services.web.healthcheck.test is missing"},
		{service("healthcheck: {test: [curl, x]}"), `services.web.healthcheck.test begins with "curl"`},
		{service("deploy: {resources: {reservations: {memory: 1g}}}"), "services.web.deploy.resources.reservations.memory is there without a limit"},
		{service("gpus: all"), `services.web.gpus is "all"; it must be a list with a count: a host keeps as many free as a replica has`},
		{service("gpus: [{count: all}]"), `services.web.gpus[0].count is "all"; it must be a number`},
		{service("gpus: [{capabilities: [gpu]}]"), "services.web.gpus[0] must have a count, or device_ids"},
		{service("gpus: [{count: 1, device_ids: ['0']}]"), "services.web.gpus[0] must have a count, or device_ids"},
		{service("gpus: [{driver: cdi, count: 1}]"), "services.web.gpus[0] must have device_ids, and no count"},
		{service("gpus: [{driver: matrox, count: 1}]"), `services.web.gpus[0].driver is "matrox"; it must be nvidia, amd or cdi`},
		{service("gpus: [{count: 1}, {count: 1}]"), "services.web.gpus[0] is one of several: keep one"},
		{service("gpus: [{count: 1}]\n    deploy: {resources: {reservations: {devices: [{count: 1}]}}}"), "services.web.gpus[0] is one of several: keep one"},
		{service("gpus: [{count: 100}]"), "services.web.gpus is 100; it must be 0 to 64"},
		{service("deploy: {resources: {limits: {memory: 1g}}}\n    mem_limit: 2g"), "services.web.deploy.resources.limits.memory differs from what the service says"},
		{service("deploy: {placement: {constraints: [node.role == manager]}}"), "services.web.deploy.placement.constraints[0] is \"node.role == manager\""},
		{service("deploy: {rollback_config: {parallelism: 1}}"), "services.web.deploy.rollback_config is not known here"},
		{service("deploy: {mode: global, replicas: 3}"), "services.web.deploy.replicas has no meaning"},
		{service("security_opt: [label=disable]"), `services.web.security_opt[0] is "label=disable"`},
		{service("ports: ['8080:80', '8080:81']"), "services.web.ports[1] is 8080 a second time (line 4)"},
		{"services: {web.a: {image: a}}\n", "services.web.a is \"web.a\""},
		{service("replicas: 3"), "services.web.replicas is not known here; there is services.web.deploy.replicas (line 4)"},
		{service("scale: 3\n    deploy: {replicas: 4}"), "services.web.scale is 3, and deploy.replicas 4: keep one of them (line 4)"},
		{service("ulimits: {nofile: x, core: {soft: 2, hard: 1}, foo: 1}"), `services.web.ulimits.nofile is the text "x"; it must be a number, or an object with soft and hard (line 4); services.web.ulimits.core is 2; it must be at most hard, which is 1 (line 4); services.web.ulimits.foo is "foo"; it must be one of as,`},
		{service("environment: {A: \"\\0\"}"), "services.web.environment.A has a NUL byte in it (line 4)"},
		{service("environment: [A=1, \"B=\\0\"]"), "services.web.environment[1] has a NUL byte in it (line 4)"},
		{service("tmpfs: /run:size=x"), `services.web.tmpfs is the text "x"; it must be a size`},
		{service("tmpfs: [/run, run]"), `services.web.tmpfs[1] is "run"; it must be an absolute path below /`},
		{service("healthcheck: {test: a, interval: 10ms}"), "services.web.healthcheck.interval is 0.01; it must be 0.1 to 86400 seconds (line 4)"},
		{service("restart: x\n    deploy: {restart_policy: {condition: any}}"), `services.web.restart is "x"`},
		{service("deploy: {resources: {limits: {cpus: '0.001'}}}"), "services.web.deploy.resources.limits.cpus is 1m; it must be at least 10m"},
		{service("expose: [1-1000]\n    ports: [" + strings.Repeat("'1-1001', ", 10) + "]"), "services.web.ports[9] makes more than 10000 ports"},
		{"services: {a: {image: 'a b', command: 5}, b: c, d: {image: e, working_dir: f}}\nfoo: 1\n", `services.a.image is "a b"; it must have no blanks (line 1); ` +
			`services.d.working_dir is "f"; it must be absolute (line 1); foo is not known here`},
		{"networks: {front: {}}\nservices: {web: {image: a}}\n", "networks.front is refused"},
		{"volumes: {a: {driver: nfs}}\nservices: {web: {image: a}}\n", `volumes.a.driver is "nfs"; it must be local`},
		{"secrets: {a: {file: b}}\nservices: {web: {image: a}}\n", "secrets is refused"},
	} {
		apps, err := manifest.Parse([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s\nis %v, %v;\nwant %s", test.text, apps, err, test.want)
		}
	}
}

func TestShellWords(t *testing.T) {
	for text, want := range map[string][]string{
		`a b  c`:           {"a", "b", "c"},
		`a "b c" 'd e'f`:   {"a", "b c", "d ef"},
		`a\ b "c\"d" 'e\'`: {"a b", `c"d`, `e\`},
		`"" ''`:            {"", ""},
		`"a\n$$x"`:         {`a\n$x`},
	} {
		got := one(t, "services:\n  web:\n    image: a\n    command: |-\n      "+text+"\n").Spec.Container.Command
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}
