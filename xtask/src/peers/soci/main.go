// Command soci-tool makes and reads zTOCs with soci-snapshotter's own packages, for tests to compare with.
//
//	soci-tool make [flags] LAYER OUT     makes the zTOC of a layer
//	soci-tool cat LAYER ZTOC FILE        prints a file of a layer, every span of which is verified
//	soci-tool show ZTOC                  prints what a zTOC says
//	soci-tool index INDEX                prints what a SOCI index says
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/awslabs/soci-snapshotter/cache"
	spanmanager "github.com/awslabs/soci-snapshotter/fs/span-manager"
	"github.com/awslabs/soci-snapshotter/soci"
	"github.com/awslabs/soci-snapshotter/ztoc"
	"github.com/awslabs/soci-snapshotter/ztoc/compression"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "soci-tool:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) == 0 {
		return errors.New("make, cat, show or index?")
	}
	switch words[0] {
	case "make":
		return makeZtoc(words[1:])
	case "cat":
		return cat(words[1:])
	case "show":
		return show(words[1:])
	case "index":
		return index(words[1:])
	}
	return fmt.Errorf("%q is neither make nor cat nor show nor index", words[0])
}

func makeZtoc(words []string) error {
	flags := flag.NewFlagSet("make", flag.ContinueOnError)
	span := flags.Int64("span", 1<<22, "bytes of the tar between two places")
	plain := flags.Bool("plain", false, "a layer that is not compressed")
	if err := flags.Parse(words); err != nil {
		return err
	}
	algorithm := compression.Gzip
	if *plain {
		algorithm = compression.Uncompressed
	}
	made, err := ztoc.NewBuilder("soci-tool").BuildZtoc(flags.Arg(0), *span, ztoc.WithCompression(algorithm))
	if err != nil {
		return err
	}
	bytes, _, err := ztoc.Marshal(made)
	if err != nil {
		return err
	}
	out, err := os.Create(flags.Arg(1))
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, bytes); err != nil {
		return err
	}
	return out.Close()
}

func read(path string) (*ztoc.Ztoc, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return ztoc.Unmarshal(in)
}

// cat reads a file as the snapshotter does.
func cat(words []string) error {
	if len(words) != 3 {
		return errors.New("cat LAYER ZTOC FILE")
	}
	toc, err := read(words[1])
	if err != nil {
		return err
	}
	entry, err := toc.GetMetadataEntry(words[2])
	if err != nil {
		return err
	}
	layer, err := os.Open(words[0])
	if err != nil {
		return err
	}
	defer layer.Close()
	info, err := layer.Stat()
	if err != nil {
		return err
	}
	section := io.NewSectionReader(layer, 0, info.Size())
	spans, err := spanmanager.New(toc, section, cache.NewMemoryCache(), 0, "")
	if err != nil {
		return err
	}
	defer spans.Close()
	contents, err := spans.GetContents(entry.UncompressedOffset, entry.UncompressedOffset+entry.UncompressedSize)
	if err != nil {
		return err
	}
	defer contents.Close()
	_, err = io.Copy(os.Stdout, contents)
	return err
}

func show(words []string) error {
	if len(words) != 1 {
		return errors.New("show ZTOC")
	}
	toc, err := read(words[0])
	if err != nil {
		return err
	}
	// The windows are long, and files are read by them anyway.
	spans, err := toc.Zinfo()
	if err != nil {
		return err
	}
	defer spans.Close()
	toc.Checkpoints = nil
	var places []compression.Offset
	for span := compression.SpanID(0); span <= toc.MaxSpanID; span++ {
		places = append(places, spans.StartUncompressedOffset(span), spans.StartCompressedOffset(span))
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"ztoc": toc, "places": places, "span": spans.SpanSize(),
	})
}

func index(words []string) error {
	if len(words) != 1 {
		return errors.New("index INDEX")
	}
	in, err := os.Open(words[0])
	if err != nil {
		return err
	}
	defer in.Close()
	var found soci.Index
	if err := soci.DecodeIndex(in, &found); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
