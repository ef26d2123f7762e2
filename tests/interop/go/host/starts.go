package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"
)

// starts makes a start for each line on stdin, and prints how long it took up to the answer of the first call, in
// microseconds.
func starts(o *options) (findings, error) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		session := newSession(o)
		begun := time.Now()
		connected, err := session.connect()
		if err == nil {
			_, err = connected.Echo(context.Background(), []byte{1})
		}
		took := time.Since(begun)
		session.client.Kill()
		if err != nil {
			return nil, err
		}
		fmt.Println(took.Microseconds())
	}
	return nil, lines.Err()
}
