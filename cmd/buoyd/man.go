package main

import (
	"flag"
	"strings"

	"github.com/buoy-edge/buoy/internal/manual"
	"github.com/buoy-edge/buoy/internal/version"
)

// man is the manual page that packages install.
func man() string {
	p := manual.New("buoyd", 8, version.Version, "daemon of a node: runs containers and answers for them over REST")
	p.Section("SYNOPSIS")
	p.Text("buoyd [FLAGS]\n\nbuoyd config check|show|reference [FLAGS]\n\nbuoyd halt|reset [FLAGS]\n\nbuoyd seal [NAME/FIELD] [FLAGS]\n\nbuoyd boot serve --interface NAME [FLAGS]\n\nbuoyd version")
	p.Section("DESCRIPTION")
	p.Text(`buoyd runs containers on this machine and answers at RUN/buoy.sock. Containers
outlive it: it may be stopped, replaced or killed. Flags are also keys of
` + defaultFile + `, which they override, and of conf.d/*.yaml beside it.`)
	p.Section("COMMANDS")
	for _, c := range [][2]string{
		{"boot serve", "Boot other machines over the network; \"buoyd boot serve --help\" has its flags."},
		{"config check", "Say what is wrong with the configuration, with file and line."},
		{"config show", "Write what is in force and where it comes from, without passwords."},
		{"config reference", "Write a configuration file with every key and its default."},
		{"seal", "Keep standard input as a secret of apps, sealed; without a name seal those that lie there plain, or with a key that is not the first any more."},
		{"halt", "End all containers with their own signals and graces and remove what was made for them on the machine. The next buoyd starts them again. SIGTERM ends the patience with them."},
		{"reset --yes", "End all containers at once and remove everything that this instance has ever made on the machine."},
		{"version", "Say which buoyd this is."},
	} {
		p.Item(c[0], c[1])
	}
	last := ""
	newConfig().keys(func(section string, f *flag.Flag) {
		if section != last {
			p.Section("FLAGS: " + strings.ToUpper(section))
			last = section
		}
		name, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && name != "" {
			usage += " (default: " + f.DefValue + ")"
		}
		p.Item(strings.TrimSpace("--"+f.Name+" "+name), usage)
	})
	p.Section("EXIT STATUS")
	p.Text("0 at SIGTERM or SIGINT, 1 on failure, 2 for a wrong command line or configuration.")
	p.Section("FILES")
	p.Item(defaultFile+", /etc/buoy/conf.d/*.yaml", "configuration")
	p.Item(defaultData, "what lasts")
	p.Item(defaultRun, "what lasts until reboot")
	p.Section("SEE ALSO")
	p.Text("buoy(1), systemctl(1)")
	return p.String()
}
