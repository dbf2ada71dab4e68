// What kubectl does with a streaming URL, with the library that kubectl is made of.
//
//	client exec [flags] URL         runs a session on its own stdin, stdout and stderr
//	client leave [flags] N          for N URLs on stdin: connects, waits for the first output, and leaves
//	client forward [flags] URL      listens on loopback, prints the port, forwards until stdin ends
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: client exec|leave|forward [flags] URL"))
	}
	var err error
	switch os.Args[1] {
	case "exec":
		err = exec(os.Args[2:])
	case "leave":
		err = leave(os.Args[2:])
	case "forward":
		err = forward(os.Args[2:])
	default:
		err = fmt.Errorf("no such command: %s", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "client:", err)
	os.Exit(1)
}
