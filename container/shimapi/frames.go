package shimapi

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFrame bounds a message: a list of 10,000 containers is about 5 MB.
const maxFrame = 64 << 20

// maxFiles is how many descriptors may come with a frame.
const maxFiles = 3

// WriteFrame sends v as one frame in one write.
func WriteFrame(w io.Writer, v any) error {
	frame, err := encode(v)
	if err == nil {
		_, err = w.Write(frame)
	}
	return err
}

func encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	frame := make([]byte, 4, 4+len(raw))
	binary.BigEndian.PutUint32(frame, uint32(len(raw)))
	return append(frame, raw...), nil
}

// ReadFrame reads one frame into v.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	return readBody(r, head, v)
}

func readBody(r io.Reader, head [4]byte, v any) error {
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes is longer than the %d allowed", n, maxFrame)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	return json.Unmarshal(buf, v)
}

// Send sends one frame and duplicates of files, which go with its first byte.
func Send(conn *net.UnixConn, v any, files ...*os.File) error {
	frame, err := encode(v)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	// The head alone: so small a message goes out whole.
	if _, _, err := conn.WriteMsgUnix(frame[:4], rights, nil); err != nil {
		return err
	}
	_, err = conn.Write(frame[4:])
	return err
}

// Receive reads one frame into v, and the descriptors that come with it, which
// the caller closes.
func Receive(conn *net.UnixConn, v any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	var head [4]byte
	room := make([]byte, unix.CmsgSpace(maxFiles*4))
	for got := 0; got < len(head); {
		n, on, _, _, err := conn.ReadMsgUnix(head[got:], room)
		if err != nil {
			return files, err
		}
		if n == 0 {
			return files, io.EOF
		}
		got += n
		files = append(files, filesIn(room[:on])...)
	}
	return files, readBody(conn, head, v)
}

// filesIn are the descriptors of a control message; the kernel has set
// close-on-exec on them.
func filesIn(control []byte) (files []*os.File) {
	if len(control) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
