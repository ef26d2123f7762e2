package main

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/go-plugin"
)

// testMode makes one line of JSON of what go-plugin gives to those who test a plugin, in the form that Terraform uses.
func testMode() *plugin.ServeTestConfig {
	configs := make(chan *plugin.ReattachConfig)
	go func() {
		config := <-configs
		line, err := json.Marshal(map[string]any{
			"Protocol":        config.Protocol,
			"ProtocolVersion": config.ProtocolVersion,
			"Pid":             config.Pid,
			"Test":            config.Test,
			"Addr":            map[string]string{"Network": config.Addr.Network(), "String": config.Addr.String()},
		})
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}()
	return &plugin.ServeTestConfig{ReattachConfigCh: configs}
}
