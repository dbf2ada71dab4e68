// stargz-snapshotter's packages, served on a socket: the project's own program is of a module that no proxy has.
package main

import (
	"context"
	"flag"
	"log"
	"net"

	snapshots "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	containerdlog "github.com/containerd/log"
	"github.com/containerd/stargz-snapshotter/service"
	"google.golang.org/grpc"
)

func main() {
	address := flag.String("address", "", "the socket")
	root := flag.String("root", "", "the folder of snapshots and the cache")
	level := flag.String("log-level", "warn", "how much is logged")
	flag.Parse()
	if err := containerdlog.SetLevel(*level); err != nil {
		log.Fatal(err)
	}
	var config service.Config
	// Two daemons of one machine cannot both have the port.
	config.NoPrometheus = true
	snapshotter, err := service.NewStargzSnapshotterService(context.Background(), *root, &config)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	snapshots.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	socket, err := net.Listen("unix", *address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(socket))
}
