module berth/nri/plugins

go 1.26.0

require (
	github.com/containerd/nri v0.12.0
	google.golang.org/protobuf v1.36.6
)

require (
	github.com/containerd/log v0.1.0 // indirect
	github.com/containerd/ttrpc v1.2.7 // indirect
	github.com/containers/nri-plugins v0.10.1 // indirect
	github.com/knqyf263/go-plugin v0.9.0 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/opencontainers/runtime-spec v1.3.0 // indirect
	github.com/sirupsen/logrus v1.9.3 // indirect
	github.com/tetratelabs/wazero v1.11.0 // indirect
	golang.org/x/mod v0.32.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20240701130421-f6361c86f094 // indirect
	google.golang.org/grpc v1.65.0 // indirect
	sigs.k8s.io/yaml v1.4.0 // indirect
)

// It has no version of its own; no program of the test uses it.
replace github.com/containers/nri-plugins/pkg/topology v0.0.0 => ./topology

tool (
	github.com/containers/nri-plugins/cmd/plugins/memory-qos
	github.com/containers/nri-plugins/cmd/plugins/sgx-epc
)
