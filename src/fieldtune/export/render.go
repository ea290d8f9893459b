// Renders a TEMPLATE for conversations as Ollama does: text/template over .System and .Messages, where system texts
// are joined and neighbors of one role become one message. Reads {"template", "conversations"} from standard input,
// writes a JSON list of texts.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct {
	Role    string
	Content string
}

type Request struct {
	Template      string
	Conversations [][]Message
}

func joined(said []Message) (string, []*Message) {
	var systems []string
	var merged []*Message
	for i := range said {
		one := &said[i]
		if one.Role == "system" {
			systems = append(systems, one.Content)
		}
		if n := len(merged); n > 0 && merged[n-1].Role == one.Role {
			merged[n-1].Content += "\n\n" + one.Content
		} else {
			merged = append(merged, one)
		}
	}
	return strings.Join(systems, "\n\n"), merged
}

func main() {
	var request Request
	fail(json.NewDecoder(os.Stdin).Decode(&request))
	asJson := template.FuncMap{"json": func(v any) string {
		text, _ := json.Marshal(v)
		return string(text)
	}}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(asJson).Parse(request.Template)
	fail(err)
	texts := []string{}
	for _, said := range request.Conversations {
		system, merged := joined(said)
		var text strings.Builder
		fail(parsed.Execute(&text, map[string]any{"System": system, "Messages": merged, "Response": ""}))
		texts = append(texts, text.String())
	}
	fail(json.NewEncoder(os.Stdout).Encode(texts))
}

func fail(err error) {
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
