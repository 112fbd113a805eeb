package dns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	headerSize = 12

	// maxAnswerUDP needs no fragments on any link (dnsflagday.net/2020); a
	// client that wants more comes by TCP.
	maxAnswerUDP = 1232
	maxAnswerTCP = dns.MaxMsgSize
)

// read takes a packet apart. A query that we do not serve has a refusal in
// its place, and what asks nothing has neither.
func read(wire []byte) (q, refusal *dns.Msg) {
	if len(wire) < headerSize || wire[2]&0x80 != 0 { // an answer: answering it could go on forever
		return nil, nil
	}
	q = &dns.Msg{}
	q.Id = binary.BigEndian.Uint16(wire)
	q.Opcode = int(wire[2]>>3) & 0xF
	if q.Opcode != dns.OpcodeQuery {
		return nil, refuse(q, dns.RcodeNotImplemented)
	}
	count := func(section int) uint16 { return binary.BigEndian.Uint16(wire[4+2*section:]) }
	// One question and no records but options: more of them is more work only.
	if count(0) != 1 || count(1) != 0 || count(2) != 0 || count(3) > 2 || q.Unpack(wire) != nil || len(q.Question) != 1 {
		return nil, refuse(&dns.Msg{MsgHdr: dns.MsgHdr{Id: q.Id}}, dns.RcodeFormatError)
	}
	question := q.Question[0]
	switch opt := q.IsEdns0(); {
	case opt != nil && opt.Version() != 0:
		refusal = refuse(q, dns.RcodeBadVers)
		refusal.SetEdns0(maxAnswerUDP, false)
		return nil, refusal
	case question.Qclass != dns.ClassINET, question.Qtype == dns.TypeAXFR, question.Qtype == dns.TypeIXFR:
		return nil, refuse(q, dns.RcodeRefused)
	}
	return q, nil
}

// busy tells a client to ask again, or somebody else.
const busy = dns.RcodeServerFailure

func refuse(q *dns.Msg, rcode int) *dns.Msg {
	m := (&dns.Msg{}).SetRcode(q, rcode)
	m.RecursionAvailable = true
	return m
}

// udpSize is how much the client takes in one packet.
func udpSize(q *dns.Msg) int {
	if q == nil {
		return dns.MinMsgSize
	}
	if opt := q.IsEdns0(); opt != nil {
		return max(dns.MinMsgSize, min(int(opt.UDPSize()), maxAnswerUDP))
	}
	return dns.MinMsgSize
}

// pack makes an answer fit the query: its options and its size. q is nil for a
// refusal, which fits already.
func pack(q, answer *dns.Msg, size int) []byte {
	answer.Compress = true
	if q != nil {
		answer.Extra = withoutOptions(answer.Extra)
		if opt := q.IsEdns0(); opt != nil {
			answer.SetEdns0(maxAnswerUDP, opt.Do())
		}
		answer.Truncate(size)
	}
	wire, err := answer.Pack()
	if err != nil && q != nil { // such as a name of Names that is none in DNS
		return pack(nil, refuse(q, dns.RcodeServerFailure), size)
	}
	return wire
}

// withoutOptions drops what is between two neighbours, and no business of the
// one behind.
func withoutOptions(extra []dns.RR) []dns.RR {
	var kept []dns.RR
	for _, rr := range extra {
		if t := rr.Header().Rrtype; t != dns.TypeOPT && t != dns.TypeTSIG && t != dns.TypeSIG {
			kept = append(kept, rr)
		}
	}
	return kept
}
