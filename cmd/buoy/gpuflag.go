package main

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// gpuWish reads --gpus.
func (f *runFlags) gpuWish(r *buoy.CreateRequest, _ place) (err error) {
	if f.gpus != "" {
		r.GPUs, err = parseGPUs(f.gpus)
	}
	return err
}

// parseGPUs reads what docker takes, "all", "2", `"device=0,1",capabilities=utility`,
// and more fields of ours. A word without "=" goes on with the list before it.
func parseGPUs(text string) (*buoy.GPURequest, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("--gpus %q: %w", text, err)
	}
	r := &buoy.GPURequest{}
	list := "count" // what a word alone is of
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok && list != "" {
			key, value = list, field
		}
		if err := gpuField(r, key, value); err != nil {
			return nil, fmt.Errorf("--gpus %q: %w", text, err)
		}
		if list = ""; key == "device" || key == "capabilities" {
			list = key
		}
	}
	return r, nil
}

func gpuField(r *buoy.GPURequest, key, value string) (err error) {
	switch key {
	case "count":
		if value == "all" || value == "-1" {
			r.Count = buoy.AllGPUs
			return nil
		}
		if r.Count, err = strconv.Atoi(value); err != nil || r.Count < 1 {
			return fmt.Errorf("%q is neither all nor a number of GPUs", value)
		}
	case "device":
		r.Devices = append(r.Devices, strings.Split(value, ",")...)
	case "capabilities":
		for c := range strings.SplitSeq(value, ",") {
			if c != "gpu" && c != "nvidia" { // what docker's own language has for "a GPU"
				r.Capabilities = append(r.Capabilities, c)
			}
		}
	case "driver", "vendor":
		r.Vendor = value
	case "model":
		r.Model = value
	case "memory":
		r.Memory, err = flagSize("memory", value)
	case "profile":
		r.Profile = value
	case "slices":
		if r.Slices, err = strconv.Atoi(value); err != nil {
			return fmt.Errorf("slices=%s is no number", value)
		}
	case "share":
		r.Share, err = flagSize("share", value)
	default:
		return fmt.Errorf("%q is none of count, device, capabilities, vendor, model, memory, profile, slices and share", key)
	}
	return err
}
