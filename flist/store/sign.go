package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// signer signs requests to S3 as AWS Signature Version 4 says.
type signer struct{ key, secret, region string }

// sign adds the headers of a signature over all headers that req has so far. The query must be empty, and the path such
// that it needs no escapes but those of net/url.
func (s *signer) sign(req *http.Request, body []byte, now time.Time) {
	stamp := now.UTC().Format("20060102T150405Z")
	scope := strings.Join([]string{stamp[:8], s.region, "s3", "aws4_request"}, "/")
	sum := sha256.Sum256(body)
	req.Header.Set("X-Amz-Date", stamp)
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))

	headers := []string{"host:" + req.URL.Host}
	for name, values := range req.Header {
		headers = append(headers, strings.ToLower(name)+":"+strings.Join(values, ","))
	}
	slices.Sort(headers)
	var names []string
	for _, h := range headers {
		names = append(names, h[:strings.IndexByte(h, ':')])
	}
	signed := strings.Join(names, ";")
	canonical := sha256.Sum256([]byte(strings.Join([]string{
		req.Method, req.URL.EscapedPath(), "", strings.Join(headers, "\n") + "\n", signed, hex.EncodeToString(sum[:]),
	}, "\n")))

	key := []byte("AWS4" + s.secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	signature := mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hex.EncodeToString(canonical[:])}, "\n"))
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+s.key+"/"+scope+
		",SignedHeaders="+signed+",Signature="+hex.EncodeToString(signature))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
