// Command stargz-tool makes and reads layers with stargz-snapshotter's own package, for tests to compare with.
//
//	stargz-tool make [flags] IN.tar OUT     makes a layer and prints what its descriptor's annotations would be
//	stargz-tool cat LAYER TOC-DIGEST FILE   prints a file of a layer, every chunk verified
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stargz-tool:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) == 0 {
		return errors.New("make or cat?")
	}
	switch words[0] {
	case "make":
		return makeLayer(words[1:])
	case "cat":
		return cat(words[1:])
	}
	return fmt.Errorf("%q is neither make nor cat", words[0])
}

func makeLayer(words []string) error {
	flags := flag.NewFlagSet("make", flag.ContinueOnError)
	chunk := flags.Int("chunk", 0, "bytes of a chunk")
	together := flags.Int("min-chunk", 0, "bytes that share a compressed stream")
	first := flags.String("prioritized", "", "files to put first, separated by commas")
	asZstd := flags.Bool("zstd", false, "zstd:chunked instead of eStargz")
	if err := flags.Parse(words); err != nil {
		return err
	}
	in, err := os.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	annotations := map[string]string{}
	options := []estargz.Option{estargz.WithChunkSize(*chunk), estargz.WithMinChunkSize(*together)}
	if *first != "" {
		options = append(options, estargz.WithPrioritizedFiles(strings.Split(*first, ",")))
	}
	if *asZstd {
		compression := struct {
			*zstdchunked.Compressor
			*zstdchunked.Decompressor
		}{
			&zstdchunked.Compressor{CompressionLevel: zstd.SpeedDefault, Metadata: annotations},
			&zstdchunked.Decompressor{},
		}
		options = append(options, estargz.WithCompression(&compression))
	}
	layer, err := estargz.Build(io.NewSectionReader(in, 0, info.Size()), options...)
	if err != nil {
		return err
	}
	defer layer.Close()
	out, err := os.Create(flags.Arg(1))
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, layer); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	annotations[estargz.TOCJSONDigestAnnotation] = layer.TOCDigest().String()
	// What containers' storage and stargz-snapshotter call an uncompressed layer's digest.
	annotations["diff-id"] = layer.DiffID().String()
	return json.NewEncoder(os.Stdout).Encode(annotations)
}

func cat(words []string) error {
	if len(words) != 3 {
		return errors.New("cat LAYER TOC-DIGEST FILE")
	}
	in, err := os.Open(words[0])
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	layer := io.NewSectionReader(in, 0, info.Size())
	reader, err := estargz.Open(layer, estargz.WithDecompressors(new(zstdchunked.Decompressor)))
	if err != nil {
		return err
	}
	if _, err := reader.VerifyTOC(digest.Digest(words[1])); err != nil {
		return err
	}
	file, err := reader.OpenFile(words[2])
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, file)
	return err
}
