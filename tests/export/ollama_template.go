// Renders a template of Ollama as Ollama does (Go's text/template over .Messages), for test_chat_form.py.
package main

import (
	"encoding/json"
	"os"
	"text/template"
)

type message struct{ Role, Content string }

func main() {
	source, _ := os.ReadFile(os.Args[1])
	var messages []message
	if err := json.Unmarshal([]byte(os.Args[2]), &messages); err != nil {
		panic(err)
	}
	made := template.Must(template.New("").Parse(string(source)))
	if err := made.Execute(os.Stdout, map[string]any{"Messages": messages}); err != nil {
		panic(err)
	}
}
