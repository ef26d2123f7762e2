// Command host is a host on go-plugin itself. It runs one scenario with a plugin, prints what it saw as one line of
// JSON, and fails if that is not what a host expects.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"

	"interop/sample"
)

// options are those of the command line.
type options struct {
	path        string
	arguments   []string
	versions    []int
	autoMTLS    bool
	multiplex   bool
	ownTLS      *tls.Config
	skipHostEnv bool
	group       string
}

// findings are what a scenario tells beside having passed.
type findings map[string]any

func main() {
	var o options
	var scenario, versions string
	var ownTLS bool
	flag.StringVar(&scenario, "scenario", "call", "one of "+strings.Join(names(), ", "))
	flag.StringVar(&versions, "versions", "1", "application protocol versions of the host")
	flag.BoolVar(&o.autoMTLS, "automtls", false, "secure the connections")
	flag.BoolVar(&ownTLS, "own-tls", false, "secure the connections with the certificates in "+ownVariables+"_CA, _CERT, _KEY")
	flag.BoolVar(&o.multiplex, "multiplex", false, "have brokered connections share a socket")
	flag.BoolVar(&o.skipHostEnv, "skip-host-env", false, "give the plugin no environment")
	flag.StringVar(&o.group, "group", "", "group for the sockets")
	flag.Parse()

	var found findings
	var err error
	if ownTLS {
		o.ownTLS, err = sample.OwnTLS(ownVariables)
	}
	if err == nil {
		found, err = run(&o, scenario, versions)
	}
	if found == nil {
		found = findings{}
	}
	found["scenario"] = scenario
	if err != nil {
		found["error"] = err.Error()
	}
	line, marshalError := json.Marshal(found)
	fmt.Println(string(line))
	if err != nil || marshalError != nil {
		os.Exit(1)
	}
}

func run(o *options, name, versions string) (found findings, err error) {
	if flag.NArg() == 0 {
		return nil, fmt.Errorf("the path of a plugin is missing")
	}
	o.path, o.arguments = flag.Arg(0), flag.Args()[1:]
	if o.versions, err = sample.Versions(versions); err != nil {
		return nil, err
	}
	scenario, known := scenarios[name]
	if !known {
		return nil, fmt.Errorf("there is no scenario %q", name)
	}
	return scenario(o)
}

func names() []string {
	var names []string
	for name := range scenarios {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
