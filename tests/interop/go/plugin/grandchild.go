package main

import (
	"os"
	"os/exec"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// startGrandchild leaves a process behind that holds the plugin's stdout and stderr open for longer than any test
// takes, and logs its id.
func startGrandchild(ownSession bool, logger hclog.Logger) error {
	command := exec.Command("sleep", "300")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: ownSession}
	if err := command.Start(); err != nil {
		return err
	}
	logger.Info("grandchild started", "grandchild", command.Process.Pid)
	return nil
}
