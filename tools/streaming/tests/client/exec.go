package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	codes "k8s.io/client-go/util/exec"
)

type session struct {
	transport, protocols, sizes, result  string
	stdin, stdout, stderr, tty, insecure bool
}

func parse(name string, args []string) (*session, string, error) {
	s := &session{}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&s.transport, "transport", "spdy", "spdy or websocket")
	flags.StringVar(&s.protocols, "protocols", "", "instead of those of the library")
	flags.StringVar(&s.sizes, "sizes", "", "of a terminal, such as 80x24,100x30")
	flags.StringVar(&s.result, "result", "", "the file that says how it ended")
	flags.BoolVar(&s.stdin, "stdin", false, "")
	flags.BoolVar(&s.stdout, "stdout", false, "")
	flags.BoolVar(&s.stderr, "stderr", false, "")
	flags.BoolVar(&s.tty, "tty", false, "")
	flags.BoolVar(&s.insecure, "insecure", false, "takes any certificate")
	if err := flags.Parse(args); err != nil {
		return nil, "", err
	}
	return s, flags.Arg(0), nil
}

func (s *session) config(target string) (*rest.Config, *url.URL, error) {
	parsed, err := url.Parse(target)
	if err != nil {
		return nil, nil, err
	}
	config := &rest.Config{Host: parsed.Host}
	config.Insecure = s.insecure
	return config, parsed, nil
}

func (s *session) executor(target string) (remotecommand.Executor, error) {
	config, parsed, err := s.config(target)
	if err != nil {
		return nil, err
	}
	var protocols []string
	if s.protocols != "" {
		protocols = strings.Split(s.protocols, ",")
	}
	switch {
	case s.transport == "websocket" && protocols != nil:
		return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", target, protocols...)
	case s.transport == "websocket":
		return remotecommand.NewWebSocketExecutor(config, "GET", target)
	case protocols != nil:
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", parsed, protocols...)
	default:
		return remotecommand.NewSPDYExecutor(config, "POST", parsed)
	}
}

func (s *session) options(stdin io.Reader, stdout, stderr io.Writer) remotecommand.StreamOptions {
	options := remotecommand.StreamOptions{Tty: s.tty}
	if s.stdin {
		options.Stdin = stdin
	}
	if s.stdout {
		options.Stdout = stdout
	}
	if s.stderr {
		options.Stderr = stderr
	}
	if s.sizes != "" {
		options.TerminalSizeQueue = &sizes{left: strings.Split(s.sizes, ",")}
	}
	return options
}

type sizes struct{ left []string }

func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(s.left) == 0 {
		return nil
	}
	size := &remotecommand.TerminalSize{}
	fmt.Sscanf(s.left[0], "%dx%d", &size.Width, &size.Height)
	s.left = s.left[1:]
	return size
}

func exec(args []string) error {
	s, target, err := parse("exec", args)
	if err != nil {
		return err
	}
	executor, err := s.executor(target)
	if err != nil {
		return err
	}
	ended := executor.StreamWithContext(context.Background(), s.options(os.Stdin, os.Stdout, os.Stderr))
	text := "ok"
	var exit codes.CodeExitError
	switch {
	case errors.As(ended, &exit):
		text = fmt.Sprintf("exit %d", exit.Code)
	case ended != nil:
		text = fmt.Sprintf("error %v", ended)
	}
	return os.WriteFile(s.result, []byte(text), 0o600)
}

// first tells of the first bytes that are written to it.
type first struct{ seen chan struct{} }

func (f *first) Write(bytes []byte) (int, error) {
	select {
	case f.seen <- struct{}{}:
	default:
	}
	return len(bytes), nil
}

func leave(args []string) error {
	s, _, err := parse("leave", args)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := s.visit(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *session) visit(target string) error {
	executor, err := s.executor(target)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Nothing is ever typed: the session ends by leaving alone.
	stdin, held := io.Pipe()
	defer held.Close()
	output := &first{seen: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() { ended <- executor.StreamWithContext(ctx, s.options(stdin, output, output)) }()
	select {
	case <-output.seen:
	case err := <-ended:
		return fmt.Errorf("ended by itself: %v", err)
	case <-time.After(time.Minute):
		return errors.New("no output")
	}
	cancel()
	<-ended
	return nil
}
