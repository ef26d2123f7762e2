// Command generate makes cache.pb.go from an encoded FileDescriptorSet, by protoc's generator and without protoc.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const file = "cache/v1/cache.proto"

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(descriptors string) error {
	encoded, err := os.ReadFile(descriptors)
	if err != nil {
		return err
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(encoded, set); err != nil {
		return err
	}
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file},
		Parameter:      proto.String("M" + file + "=peers/contract"),
		ProtoFile:      set.File,
	})
	if err != nil {
		return err
	}
	internal_gengo.GenerateFile(plugin, plugin.FilesByPath[file])
	for _, made := range plugin.Response().File {
		if err := os.WriteFile(filepath.Base(made.GetName()), []byte(made.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
