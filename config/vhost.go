package config

import (
	"maps"
	"slices"

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

// A Binding makes a queue or an exchange a target of what an address gets.
type Binding struct {
	Queue    string            // one of the queues above, or
	Exchange string            // one of the exchanges above, or a predeclared one
	Source   string            // the text form of an address: t/plant/+/temp, x/logs/key, x/news
	Match    core.Match        // of a headers exchange: all, any, all-with-x, any-with-x
	Args     map[string]string // of a headers exchange: what headers a message has; empty: any value
	Only     core.Only         // all, transient, durable
}

// Spec is the binding as core knows it, in the virtual host of that name. It
// must have been validated.
func (b *Binding) Spec(vhost string) (*core.BindingSpec, error) {
	source, err := core.ParseAddress(vhost, b.Source)
	if err != nil {
		return nil, err
	}
	spec := &core.BindingSpec{Queue: b.Queue, Exchange: b.Exchange, Source: source, Match: b.Match, Only: b.Only}
	for _, name := range slices.Sorted(maps.Keys(b.Args)) {
		spec.Args = append(spec.Args, core.Header{Name: name, Value: b.Args[name]})
	}
	return spec, nil
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
	for i := range v.Bindings {
		spec, err := v.Bindings[i].Spec(name)
		if err != nil {
			return nil, err
		}
		out = append(out, core.Change{Do: core.Alter, Binding: spec})
	}
	return out, nil
}
