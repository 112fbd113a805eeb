package nvml

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/gpu"
)

// Source is what Serve asks; Library is one.
type Source interface {
	Open() error
	Machine() (gpu.Machine, error)
	Figures() ([]gpu.Figures, error)
	// Follow tells what the driver says unasked, for as long as it says something.
	Follow(tell func(gpu.Message))
}

// lastWords is how long the answer to what was asked last may take once nobody
// is left to ask more.
const lastWords = 10 * time.Second

// Serve answers questions on in with lines on out, until in ends or something
// goes wrong. Calls of the library may not have returned then, and may never do
// so: the caller ends the process.
func Serve(in io.Reader, out io.Writer, src Source) error {
	s := session{src: src, out: json.NewEncoder(out), questions: make(chan gpu.Question), failed: make(chan error, 3)}
	go s.work()
	go s.read(in)
	return <-s.failed
}

type session struct {
	src       Source
	questions chan gpu.Question
	failed    chan error // the first ends Serve; nil: nobody asks any more

	mu  sync.Mutex // guards out
	out *json.Encoder
}

func (s *session) read(in io.Reader) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var q gpu.Question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			s.failed <- fmt.Errorf("read a question: %w", err)
			return
		}
		s.questions <- q
	}
	if err := lines.Err(); err != nil {
		s.failed <- fmt.Errorf("read a question: %w", err)
		return
	}
	close(s.questions)
	time.Sleep(lastWords)
	s.failed <- nil
}

func (s *session) work() {
	open := false
	for q := range s.questions {
		var err error
		if !open {
			if err = s.src.Open(); err == nil {
				open = true
				go s.src.Follow(s.say) // as long as the process
			}
		}
		m := gpu.Message{ID: q.ID}
		if err == nil {
			err = s.answer(q.Ask, &m)
		}
		if err != nil {
			m = gpu.Message{ID: q.ID, Error: err.Error()}
		}
		s.say(m)
		if err != nil {
			s.failed <- err
			return
		}
	}
	s.failed <- nil
}

func (s *session) answer(what gpu.Ask, m *gpu.Message) (err error) {
	switch what {
	case gpu.AskMachine:
		var machine gpu.Machine
		machine, err = s.src.Machine()
		m.Machine = &machine
	case gpu.AskFigures:
		m.Figures, err = s.src.Figures()
	default:
		err = fmt.Errorf("there is no question %q", what)
	}
	return err
}

// say writes a line. Nobody is left to hear of it if that fails.
func (s *session) say(m gpu.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.out.Encode(m)
}
