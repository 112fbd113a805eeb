package main

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// asYAML writes JSON as YAML, its fields in their order.
func asYAML(text []byte) ([]byte, error) {
	var doc yaml.Node // JSON as encoding/json writes it is YAML
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	block(&doc)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// block takes away how nodes were spelled: quotes stay where they are needed.
func block(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle | yaml.DoubleQuotedStyle
	for _, child := range n.Content {
		block(child)
	}
}
