package config

import (
	"github.com/godwitmq/godwit/core"
)

// A VHost is what exists in a virtual host before its first client comes.
type VHost struct {
	Exchanges []core.ExchangeSpec
	Queues    []core.QueueSpec
	Bindings  []Binding
	Policies  []core.Policy // settings of queues by their names
	Streams   notYet
}

// A Binding makes a queue a target of what an address gets.
type Binding struct {
	Queue  string    // one of the queues above
	Source string    // the text form of an address: t/plant/+/temp, x/logs/key
	Only   core.Only // all, transient, durable
}

// Changes declares it all in the virtual host of that name: the file is the
// operator's word, so what exists already takes the file's settings. It must
// have been validated.
func (v VHost) Changes(name string) ([]core.Change, error) {
	var out []core.Change
	for i := range v.Exchanges {
		out = append(out, core.Change{Do: core.Alter, Exchange: &v.Exchanges[i]})
	}
	for i := range v.Queues {
		out = append(out, core.Change{Do: core.Alter, Queue: &v.Queues[i]})
	}
	for _, b := range v.Bindings {
		source, err := core.ParseAddress(name, b.Source)
		if err != nil {
			return nil, err
		}
		out = append(out, core.Change{Do: core.Alter, Binding: &core.BindingSpec{Queue: b.Queue, Source: source, Only: b.Only}})
	}
	return out, nil
}
