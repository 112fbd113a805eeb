package main

import "testing"

func TestPublished(t *testing.T) {
	for _, c := range []struct{ text, port, want string }{
		{"8080:80", "80", "8080"},
		{"8080:80", "80/tcp", "8080"},
		{"8080:80", "80/udp", ""},
		{"8080:80", "81", ""},
		{"127.0.0.1:53:5353/udp", "5353/udp", "127.0.0.1:53"},
		{"127.0.0.1:53:5353/udp", "5353", ""},
		{"[::1]:53:53", "53", "[::1]:53"},
		{"10.0.0.0/8:8000-8010:80-90/udp", "85/udp", "10.0.0.0/8:8005"},
		{"8000-8010:80", "80", "8000-8010"},
		{"8080:80", "http", ""},
	} {
		if got := publishedAs(c.text).of(c.port); got != c.want {
			t.Errorf("%s of %s is %q, want %q", c.port, c.text, got, c.want)
		}
	}
}
