// A plugin made of upstream's library, which does what its configuration says and writes down what it is told.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"google.golang.org/protobuf/encoding/protojson"
)

type config struct {
	// Journal is the file that every event becomes a line of.
	Journal string
	// Events to subscribe to; empty for all but validation.
	Events []string
	// Adjust is what is asked for when a container is created.
	Adjust json.RawMessage
	// Update is what is asked for of other containers, then, at a stop and when the plugin joins.
	Update json.RawMessage
	// Refuse names events to fail.
	Refuse []string
	// Hang names events that are never answered.
	Hang []string
	// Reject is why containers are not valid; empty when they are.
	Reject string
	// Unsolicited is what is asked for right after the start.
	Unsolicited json.RawMessage
}

type plugin struct {
	config config
	stub   stub.Stub
}

func main() {
	name := flag.String("name", "", "")
	index := flag.String("idx", "", "")
	socket := flag.String("socket", "", "")
	text := flag.String("config", "", "")
	flag.Parse()
	p := &plugin{}
	options := []stub.Option{}
	if *name != "" {
		options = append(options, stub.WithPluginName(*name), stub.WithPluginIdx(*index), stub.WithSocketPath(*socket))
		must(json.Unmarshal([]byte(*text), &p.config))
	}
	var err error
	p.stub, err = stub.New(p, options...)
	must(err)
	must(p.stub.Start(context.Background()))
	if len(p.config.Unsolicited) > 0 {
		failed, err := p.stub.UpdateContainers(updates(p.config.Unsolicited))
		p.write("UpdateContainers", fmt.Sprintf("%d failed, %v", len(failed), err))
	}
	p.stub.Wait()
	p.write("closed", "")
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (p *plugin) write(event, detail string) {
	if p.config.Journal == "" {
		return
	}
	file, err := os.OpenFile(p.config.Journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(err)
	defer file.Close()
	fmt.Fprintln(file, event, detail)
}

// told writes an event down and does what is configured for it.
func (p *plugin) told(event, detail string) error {
	p.write(event, detail)
	if slices.Contains(p.config.Hang, event) {
		select {}
	}
	if slices.Contains(p.config.Refuse, event) {
		return fmt.Errorf("%s does not please", event)
	}
	return nil
}

func updates(text json.RawMessage) []*api.ContainerUpdate {
	if len(text) == 0 {
		return nil
	}
	update := &api.ContainerUpdate{}
	must(protojson.Unmarshal(text, update))
	return []*api.ContainerUpdate{update}
}

func (p *plugin) Configure(_ context.Context, text, runtime, version string) (api.EventMask, error) {
	if text != "" {
		if err := json.Unmarshal([]byte(text), &p.config); err != nil {
			return 0, err
		}
	}
	p.write("Configure", runtime+" "+version+" "+p.stub.RuntimeNRIVersion()+" "+p.stub.RequestTimeout().String())
	if len(p.config.Events) > 0 {
		return api.ParseEventMask(p.config.Events...)
	}
	mask := api.ValidEvents
	return *mask.Clear(api.Event_VALIDATE_CONTAINER_ADJUSTMENT), nil
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	err := p.told("Synchronize", fmt.Sprintf("%d pods, %d containers", len(pods), len(containers)))
	return updates(p.config.Update), err
}

func (p *plugin) Shutdown(context.Context) { p.write("Shutdown", "") }

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("RunPodSandbox", pod.GetName())
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, overhead, resources *api.LinuxResources) error {
	return p.told("UpdatePodSandbox", fmt.Sprintf("%s %d %d", pod.GetName(), overhead.GetCpu().GetShares().GetValue(), resources.GetCpu().GetShares().GetValue()))
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("PostUpdatePodSandbox", pod.GetName())
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("StopPodSandbox", pod.GetName())
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.told("RemovePodSandbox", pod.GetName())
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	err := p.told("CreateContainer", pod.GetName()+" "+container.GetName()+" "+fmt.Sprint(container.GetAnnotations(), container.GetEnv()))
	var adjust *api.ContainerAdjustment
	if len(p.config.Adjust) > 0 {
		adjust = &api.ContainerAdjustment{}
		must(protojson.Unmarshal(p.config.Adjust, adjust))
	}
	return adjust, updates(p.config.Update), err
}

func (p *plugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, container *api.Container) error {
	return p.told("PostCreateContainer", container.GetName())
}

func (p *plugin) StartContainer(_ context.Context, _ *api.PodSandbox, container *api.Container) error {
	return p.told("StartContainer", container.GetName())
}

func (p *plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, container *api.Container) error {
	return p.told("PostStartContainer", container.GetName())
}

func (p *plugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, container *api.Container, resources *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	err := p.told("UpdateContainer", fmt.Sprintf("%s %d", container.GetName(), resources.GetCpu().GetShares().GetValue()))
	return updates(p.config.Update), err
}

func (p *plugin) PostUpdateContainer(_ context.Context, _ *api.PodSandbox, container *api.Container) error {
	return p.told("PostUpdateContainer", container.GetName())
}

func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	return updates(p.config.Update), p.told("StopContainer", container.GetName())
}

func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, container *api.Container) error {
	return p.told("RemoveContainer", container.GetName())
}

func (p *plugin) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	owner, _ := request.GetOwners().EnvOwner(request.GetContainer().GetId(), "COLOUR")
	err := p.told("ValidateContainerAdjustment", fmt.Sprintf("%s, COLOUR is %s's, of %d plugins", request.GetContainer().GetName(), owner, len(request.GetPlugins())))
	if p.config.Reject != "" {
		return fmt.Errorf("%s", p.config.Reject)
	}
	return err
}
