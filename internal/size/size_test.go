package size

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "64Mi": 64 << 20, "64MiB": 64 << 20, "64m": 64 << 20, "64MB": 64 << 20, "1g": 1 << 30,
		"1.5G": 3 << 29, "2T": 2 << 40, "1p": 1 << 50, "10b": 10, "0.5k": 512, "512kb": 512 << 10,
	} {
		if got, err := Parse(text); got != want || err != nil {
			t.Errorf("Parse(%s) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m", "-1", "1x", "5i", "5ib", "1e3", "1.2.3", "9999999999t", "0x10", "1/2", ".", "inf", "1 m"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", text, got)
		}
	}
}

func TestText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 20: "3.0 MiB", 1 << 62: "4096.0 PiB"} {
		if got := Text(n); got != want {
			t.Errorf("Text(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[Bytes]string{0: "0", 1023: "1023", 1536: "1536", 256 << 20: "256MiB", 10 << 30: "10GiB", 3 << 50: "3PiB", 1 << 60: "1024PiB"} {
		got := n.String()
		if back, err := Parse(got); got != want || back != int64(n) || err != nil {
			t.Errorf("%d is %s, want %s, and is read as %d, %v", int64(n), got, want, back, err)
		}
	}
}
