// The same work in straight Go: net/http, maps, encoding/json, a buffered file under a mutex.
// Dots nest and numbers become numbers; arrays, limits and names that stay texts are left out.
//
//	RIVAL_EVENTS=events.ndjson GOMAXPROCS=1 pixels 127.0.0.1:8080
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const key = "wk-demo"

var gif, _ = base64.StdEncoding.DecodeString("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")

// A text that is a whole number or a decimal becomes one.
func numberOrText(text string) any {
	if text == "" || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		return text
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return f
	}
	return text
}

func nested(query url.Values) map[string]any {
	event := make(map[string]any, 16)
	for name, texts := range query {
		place := event
		for {
			parent, rest, found := strings.Cut(name, ".")
			if !found {
				break
			}
			child, ok := place[parent].(map[string]any)
			if !ok {
				child = make(map[string]any)
				place[parent] = child
			}
			place, name = child, rest
		}
		place[name] = numberOrText(texts[0])
	}
	return event
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

type sink struct {
	mutex sync.Mutex
	out   *bufio.Writer
}

func (s *sink) write(line []byte) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, err := s.out.Write(line); err != nil {
		return err
	}
	return s.out.WriteByte('\n')
}

func (s *sink) take(call string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		event := nested(r.URL.Query())
		if event["writeKey"] != key {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		delete(event, "writeKey")
		now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
		context, ok := event["context"].(map[string]any)
		if !ok {
			context = make(map[string]any)
			event["context"] = context
		}
		if _, ok := context["userAgent"]; !ok {
			context["userAgent"] = r.UserAgent()
		}
		event["type"] = call
		event["channel"] = "web"
		event["integrations"] = map[string]bool{"All": true}
		event["messageId"] = newID()
		for _, name := range []string{"receivedAt", "originalTimestamp", "sentAt", "timestamp"} {
			event[name] = now
		}
		event["request_ip"] = r.Header.Get("X-Forwarded-For")
		line, err := json.Marshal(event)
		if err == nil {
			err = s.write(line)
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "image/gif")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(gif)
	}
}

func main() {
	file, err := os.OpenFile(os.Getenv("RIVAL_EVENTS"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	pixels := &sink{out: bufio.NewWriterSize(file, 64*1024)}
	http.HandleFunc("GET /pixel/v1/track", pixels.take("track"))
	http.HandleFunc("GET /pixel/v1/page", pixels.take("page"))
	go func() { log.Fatal(http.ListenAndServe(os.Args[1], nil)) }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	pixels.mutex.Lock()
	if err := pixels.out.Flush(); err != nil {
		log.Fatal(err)
	}
}
