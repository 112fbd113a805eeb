package node

// Changed is closed when a container, its status or its health becomes another
// one. Ask for it first and then look: what happens in between closes it.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// announce wakes whoever waits for a change: of a container, or the end of a job.
func (n *Node) announce() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}
