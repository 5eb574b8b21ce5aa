// Server-Sent Events with net/http, to measure the cost of an event without Python.
//
// The argument is a file with a JSON text in each line. The program prints its port and
// exits when its standard input is closed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"time"
)

const pace = 20 * time.Millisecond

type delta struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type choice struct {
	Index        int     `json:"index"`
	Delta        delta   `json:"delta"`
	FinishReason *string `json:"finish_reason"`
}

type chunk struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int      `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
}

func main() {
	chunks := samples(os.Args[1])

	http.HandleFunc("GET /paced", func(w http.ResponseWriter, r *http.Request) {
		stream := begin(w)
		ticks := time.NewTicker(pace)
		defer ticks.Stop()
		for index := 0; ; index++ {
			stream.send(&chunks[index%len(chunks)])
			select {
			case <-ticks.C:
			case <-r.Context().Done():
				return
			}
		}
	})

	http.HandleFunc("GET /awaiting/{laps}", func(w http.ResponseWriter, r *http.Request) {
		laps, err := strconv.Atoi(r.PathValue("laps"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		stream := begin(w)
		for index := 0; index < laps*len(chunks); index++ {
			stream.send(&chunks[index%len(chunks)])
			runtime.Gosched() // The other streams run now.
		}
	})

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(listener, nil))
}

func samples(path string) []chunk {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	var chunks []chunk
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var one chunk
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			log.Fatal(err)
		}
		chunks = append(chunks, one)
	}
	return chunks
}

type events struct {
	writer  http.ResponseWriter
	flusher http.Flusher
	encoder *json.Encoder
}

func begin(w http.ResponseWriter) events {
	w.Header().Set("Content-Type", "text/event-stream")
	encoder := json.NewEncoder(w) // It writes a line feed after each value.
	encoder.SetEscapeHTML(false)
	return events{w, w.(http.Flusher), encoder}
}

// send writes one event and flushes it. A disconnect ends the context of the request.
func (e events) send(one *chunk) {
	io.WriteString(e.writer, "data: ")
	e.encoder.Encode(one)
	io.WriteString(e.writer, "\n")
	e.flusher.Flush()
}
