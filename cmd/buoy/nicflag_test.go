package main

import (
	"encoding/json"
	"testing"
)

func TestParseNIC(t *testing.T) {
	for text, want := range map[string]string{
		"type=default":        `{"type":"default","id":"","config":{"dhcp":false,"cidr":"","gateway":"","dns":[]}}`,
		"type=vlan,id=7,dhcp": `{"type":"vlan","id":"7","config":{"dhcp":true,"cidr":"","gateway":"","dns":[]}}`,
		"type=vlan,id=7,cidr=10.0.0.2/24,cidr=fd00::2/64,gateway=10.0.0.1,gateway=fd00::1,route=10.9.0.0/16@10.0.0.9,route=10.8.0.0/16,search=shop.example,mtu=1400,in=10mbit,out=1.5Gbit,uplink=eno2": `` +
			`{"type":"vlan","id":"7","config":{"dhcp":false,"cidr":"","gateway":"","dns":[],"cidrs":["10.0.0.2/24","fd00::2/64"],"gateways":["10.0.0.1","fd00::1"],` +
			`"routes":[{"to":"10.9.0.0/16","via":"10.0.0.9"},{"to":"10.8.0.0/16"}],"search":["shop.example"],"mtu":1400,"rate":{"in":10000000,"out":1500000000},"uplink":"eno2"}}`,
		"type=vxlan,id=9,peer=192.0.2.1,peer=192.0.2.2,port=8472": `{"type":"vxlan","id":"9","config":{"dhcp":false,"cidr":"","gateway":"","dns":[],"peers":["192.0.2.1","192.0.2.2"],"port":8472}}`,
		"type=macvlan,mode=vepa,group=239.1.1.1":                  `{"type":"macvlan","id":"","config":{"dhcp":false,"cidr":"","gateway":"","dns":[],"mode":"vepa","group":"239.1.1.1"}}`,

		"type=vlan,mtu=big":  `--nic "type=vlan,mtu=big": mtu: "big" is not a number up to 65535`,
		"type=vlan,in=fast":  `--nic "type=vlan,in=fast": in: "fast" is not a rate like 500kbit, 10mbit or 1gbit`,
		"type=vlan,in=-1":    `--nic "type=vlan,in=-1": in: "-1" is not a rate like 500kbit, 10mbit or 1gbit`,
		"type=vlan,in=NaN":   `--nic "type=vlan,in=NaN": in: "NaN" is not a rate like 500kbit, 10mbit or 1gbit`,
		"type=vlan,colour=1": `--nic "type=vlan,colour=1": "colour" is none of cidr, dhcp, dns, gateway, group, hwaddr, id, in, mode, mtu, name, out, peer, port, route, search, type, uplink`,
		"id=1":               `--nic "id=1": want at least type=`,
	} {
		nic, err := parseNIC(text)
		raw, _ := json.Marshal(nic)
		got := string(raw)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestNetworkUpdate(t *testing.T) {
	for _, c := range []struct {
		nics, ports       []string
		newNICs, newPorts bool
		want              string
	}{
		{nil, nil, false, false, "nothing to change: give --nic or --publish"},
		{[]string{""}, nil, true, false, `{"nics":[]}`},
		{nil, []string{""}, false, true, `{"ports":[]}`},
		{nil, []string{"80:80", "9000-9009:9000-9009/udp"}, false, true, `{"ports":["80:80","9000-9009:9000-9009/udp"]}`},
		{[]string{"id=1"}, nil, true, false, `--nic "id=1": want at least type=`},
		{nil, []string{"80"}, false, true, `--publish "80": want [ADDRESS:]HOST:GUEST[/udp], ports from 1 to 65535 or ranges like 8000-8010`},
	} {
		u, err := networkUpdate(c.nics, c.ports, c.newNICs, c.newPorts)
		raw, _ := json.Marshal(u)
		got := string(raw)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q %q: %s, want %s", c.nics, c.ports, got, c.want)
		}
	}
}
